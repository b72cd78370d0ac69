"""A release: built once, tried in empty environments, attested, and published without a token."""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest
import yaml

import alm
from tests import ROOT

PATH = ROOT / ".github" / "workflows" / "release.yml"
TEXT = PATH.read_text("utf-8")
FLOW: dict[Any, Any] = yaml.safe_load(TEXT)
JOBS: dict[str, Any] = FLOW["jobs"]
ON: dict[str, Any] = FLOW[True]  # YAML 1.1 reads `on` so


def said(job: str) -> str:
    """Everything that a job's steps run."""
    return "\n".join(step.get("run", "") for step in JOBS[job]["steps"])


def used(job: str) -> list[str]:
    """The actions of a job, without their versions."""
    return [step["uses"].partition("@")[0] for step in JOBS[job]["steps"] if "uses" in step]


def test_a_tag_starts_it_and_only_a_tag_publishes() -> None:
    assert ON == {"push": {"tags": ["v*"]}, "workflow_dispatch": None}
    assert JOBS["publish"]["if"] == "startsWith(github.ref, 'refs/tags/v')"
    assert set(JOBS["publish"]["needs"]) == {"build", "try"} and JOBS["try"]["needs"] == "build"


def test_every_action_is_pinned_to_a_version() -> None:
    actions = re.findall(r"uses: (\S+)", TEXT)
    assert len(actions) == 8
    assert all(re.fullmatch(r"[\w-]+/[\w-]+@v\d+\.\d+\.\d+", action) for action in actions)


def test_a_job_may_do_no_more_than_it_must() -> None:
    assert FLOW["permissions"] == {} and JOBS["try"]["permissions"] == {}
    assert JOBS["build"]["permissions"] == {"contents": "read"}
    rights = {"contents": "read", "id-token": "write", "attestations": "write"}
    assert JOBS["publish"]["permissions"] == rights
    assert "secrets." not in TEXT and "password" not in TEXT
    assert JOBS["build"]["steps"][0]["with"] == {"persist-credentials": False}


def test_what_is_built_is_checked_and_is_what_the_tag_names() -> None:
    words = said("build")
    assert "hatchling build -d dist" in words and "twine check --strict dist/*" in words
    assert "--require-hashes -r requirements/build.txt" in words
    assert re.search(r"twine==\d+\.\d+\.\d+", words)
    (tag,) = (s for s in JOBS["build"]["steps"] if "GITHUB_REF_NAME" in s.get("run", ""))
    assert tag["if"] == "startsWith(github.ref, 'refs/tags/')"
    done = subprocess.run(
        [sys.executable, "-m", "hatchling", "version"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.stdout.strip() == alm.__version__, done.stderr


def test_sdist_and_wheel_are_tried_in_empty_environments_before() -> None:
    ways = JOBS["try"]["strategy"]["matrix"]
    assert set(ways["kind"]) == {"*.whl", "*.tar.gz"} and ways["python"] == ["3.10", "3.13"]
    words = said("try")
    assert "python -m venv empty" in words and "pip check" in words
    assert "actions/checkout" not in used("try")  # whose folders Python would find
    assert all(f"empty/bin/{name}" in words for name in ("alm-run --version", "alm --help"))


def test_it_is_attested_and_published_by_the_workflows_own_identity() -> None:
    assert used("publish") == [
        "actions/download-artifact",
        "actions/attest-build-provenance",
        "pypa/gh-action-pypi-publish",
    ]
    assert JOBS["publish"]["environment"]["name"] == "pypi"
    _, provenance, publish = JOBS["publish"]["steps"]
    assert provenance["with"] == {"subject-path": "dist/*"}
    assert publish["with"] == {"attestations": True}


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `make dist` builds, without a network."""
    out = tmp_path_factory.mktemp("dist")
    words = [sys.executable, "-m", "hatchling", "build", "-d", str(out)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return out


def test_make_dist_builds_the_sdist_and_the_wheel(dist: Path) -> None:
    assert "hatchling build -d dist" in (ROOT / "Makefile").read_text("utf-8")
    version = alm.__version__
    assert {path.name for path in dist.iterdir()} == {
        f"alm_edge-{version}.tar.gz",
        f"alm_edge-{version}-py3-none-any.whl",
    }


def test_the_sdist_holds_what_builds_the_wheel_and_nothing_else(dist: Path) -> None:
    (path,) = dist.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"pyproject.toml", "README.md", "LICENSE", "PKG-INFO"} <= names
    assert {name.partition("/")[0] for name in names} <= {
        *("pyproject.toml", "README.md", "LICENSE", "PKG-INFO", "runtime", ".gitignore"),
        *("export.py", "exporters", "wrappers", "demo"),
    }
    demo = {name for name in names if name.startswith("demo/") and not name.endswith("/")}
    assert demo == {"demo/lamp.wav", "demo/siren.wav"}
