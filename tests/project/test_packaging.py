"""The wheel holds alm, what alm-export runs and its metadata, and asks for what a device needs."""

from __future__ import annotations

import configparser
import re
import subprocess
import sys
import zipfile
from email.message import Message
from email.parser import Parser
from typing import Any

import pytest
import tomli

import alm
from tests import ROOT

DEVICE = {"numpy", "soundfile", "soxr", "tokenizers", "typer"}  # all besides one engine


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """The wheel, built without a network."""
    out = tmp_path_factory.mktemp("wheel")
    words = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(out)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    (path,) = out.iterdir()
    assert path.name == f"alm_edge-{alm.__version__}-py3-none-any.whl"
    return zipfile.ZipFile(path)


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    """pyproject.toml's [project]."""
    return tomli.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]


def metadata(wheel: zipfile.ZipFile) -> Message:
    (name,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    return Parser().parsestr(wheel.read(name).decode("utf-8"))


def wanted(line: str) -> tuple[str, str]:
    """The package of a requirement and the extra that asks for it, if one does."""
    name = re.match(r"[A-Za-z0-9._-]+", line)
    extra = re.search(r"extra == ['\"]([\w-]+)['\"]", line)
    assert name
    return name[0].lower(), extra[1] if extra else ""


def test_the_wheel_holds_alm_the_workshop_and_metadata_and_nothing_else(
    wheel: zipfile.ZipFile,
) -> None:
    names = wheel.namelist()
    info = f"alm_edge-{alm.__version__}.dist-info/"
    assert {name.partition("/")[0] for name in names} == {"alm", "alm_export", info.rstrip("/")}
    workshop = {f"{name}.wav" for name in ("demo/lamp", "demo/siren")} | {"export.py"}
    for folder in ("exporters", "wrappers"):
        workshop |= {p.relative_to(ROOT).as_posix() for p in (ROOT / folder).rglob("*.py")}
    ours = {n.removeprefix("alm_export/") for n in names if n.startswith("alm_export/")}
    assert ours == workshop | {"__init__.py"}
    home = ROOT / "runtime"
    sources = {p.relative_to(home).as_posix() for p in (home / "alm").rglob("*.py")}
    page = {p.relative_to(home).as_posix() for p in (home / "alm" / "serve" / "page").iterdir()}
    assert {n.rpartition(".")[2] for n in page} == {"html", "css", "js", "svg"}
    assert {n for n in names if n.startswith("alm/")} == sources | page | {"alm/py.typed"}
    meta = {n.removeprefix(info) for n in names if n.startswith(info)}
    licences = {name for name in meta if name.startswith("licenses/")}
    assert meta - licences == {"METADATA", "WHEEL", "RECORD", "entry_points.txt"}
    assert licences == {"licenses/LICENSE"}


def test_the_wheels_files_are_those_of_the_checkout(wheel: zipfile.ZipFile) -> None:
    for name in wheel.namelist():
        if name.startswith(("alm/", "alm_export/__init__")):
            assert wheel.read(name) == (ROOT / "runtime" / name).read_bytes()
        elif name.startswith("alm_export/"):
            own = ROOT / name.removeprefix("alm_export/")
            assert wheel.read(name) == own.read_bytes()


def test_the_entry_points_are_alm_run_alm_and_alm_export(wheel: zipfile.ZipFile) -> None:
    (name,) = (name for name in wheel.namelist() if name.endswith("entry_points.txt"))
    said = configparser.ConfigParser()
    said.read_string(wheel.read(name).decode())
    assert {part: dict(said[part]) for part in said.sections()} == {
        "console_scripts": {
            "alm-run": "alm.cli.run_command:run",
            "alm": "alm.cli.alm_commands:main",
            "alm-export": "alm_export:main",
        }
    }


def test_the_commands_that_the_entry_points_name_are_there() -> None:
    import alm_export
    from alm.cli import alm_commands, run_command

    assert callable(run_command.run) and callable(alm_commands.main) and callable(alm_export.main)


def test_the_device_needs_only_what_was_meant(wheel: zipfile.ZipFile) -> None:
    lines = [str(line) for line in metadata(wheel).get_all("Requires-Dist", [])]
    plain = {name for name, extra in map(wanted, lines) if not extra}
    assert plain == DEVICE


def test_the_extras_are_those_of_pyproject(wheel: zipfile.ZipFile, project: dict[str, Any]) -> None:
    said = metadata(wheel)
    found: dict[str, set[str]] = {str(e): set() for e in said.get_all("Provides-Extra", [])}
    for name, extra in map(wanted, map(str, said.get_all("Requires-Dist", []))):
        if extra:
            found[extra].add(name)
    extras: dict[str, list[str]] = project["optional-dependencies"]

    def meant(extra: str) -> set[str]:
        """Packages of an extra, and of those that it is made of."""
        names: set[str] = set()
        for line in extras[extra]:
            own = re.fullmatch(r"alm-edge\[(.+)\]", line)
            others = own[1].split(",") if own else []
            names |= set().union(*map(meant, others)) if others else {wanted(line)[0]}
        return names

    assert found == {extra: meant(extra) for extra in extras}


def test_the_engine_is_an_extra_since_two_share_a_name(project: dict[str, Any]) -> None:
    assert not any("onnxruntime" in line for line in project["dependencies"])


def test_the_version_is_said_once_and_everywhere_the_same(
    wheel: zipfile.ZipFile, project: dict[str, Any]
) -> None:
    assert project["dynamic"] == ["version"] and "version" not in project
    assert alm.__version__ == metadata(wheel)["Version"]


def test_the_workshop_squats_on_no_common_name(wheel: zipfile.ZipFile) -> None:
    tops = {name.partition("/")[0] for name in wheel.namelist()}
    assert not tops & {"exporters", "wrappers", "demo", "export.py", "runtime", "tests"}


def test_the_extras_that_are_meant_are_there(project: dict[str, Any]) -> None:
    extras = project["optional-dependencies"]
    assert {"cpu", "gpu", "openvino", "export", "serve", "av", "hub", "sign", "all"} <= set(extras)
    assert extras["cpu"] == ["alm-edge[ort]"] and extras["gpu"] == ["alm-edge[ort-gpu]"]


def test_the_oldest_python_is_said(wheel: zipfile.ZipFile, project: dict[str, Any]) -> None:
    assert metadata(wheel)["Requires-Python"] == project["requires-python"] == ">=3.10"
