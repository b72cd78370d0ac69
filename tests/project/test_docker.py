"""The images: pinned, small, run by a user without rights, healthy where the server answers.

Nothing here needs a network or Docker; that the pinned packages are on the index for each image's
machine is looked at by `make docker-check`, which .ci/run runs.
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass

import pytest
import tomli
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from alm.serve import guard
from tests import ROOT

sys.path.insert(0, str(ROOT / "docker"))

import lock  # noqa: E402  # pyright: ignore[reportMissingImports]

FOLDER = ROOT / "docker"
NAMES = sorted(path.name.partition(".")[0] for path in FOLDER.glob("*.Dockerfile"))
PROJECT = tomli.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
PAGE = (ROOT / "docs" / "jetson.md").read_text("utf-8")
SECRET = re.compile(r"(api_?key|token|secret|password)\s*[=:]\s*\S", re.IGNORECASE)


@dataclass(frozen=True)
class Instruction:
    """A line of a Dockerfile: what is done, with what."""

    name: str
    words: str


def instructions(name: str) -> list[Instruction]:
    """The instructions of an image.

    These files hold no heredoc, no parser directive and no other escape than a backslash at the end
    of a line: `test_the_files_are_as_plain_as_they_are_read` holds them to it.
    """
    text = (FOLDER / f"{name}.Dockerfile").read_text("utf-8")
    text = re.sub(r"^\s*#.*\n", "", text, flags=re.MULTILINE)
    found = []
    for line in filter(None, map(str.strip, re.sub(r"\\\n\s*", " ", text).splitlines())):
        word, _, words = line.partition(" ")
        found.append(Instruction(word.upper(), words.strip()))
    return found


def of(name: str, kind: str) -> list[str]:
    return [done.words for done in instructions(name) if done.name == kind]


def pins(name: str) -> dict[str, Requirement]:
    """What an image installs from PyPI."""
    text = lock.lines(FOLDER / f"{name}.txt").replace("\\\n", " ")
    found: dict[str, Requirement] = {}
    for line in filter(None, map(str.strip, text.splitlines())):
        requirement, *hashes = line.split("--hash=sha256:")
        assert hashes and all(re.fullmatch(r"[0-9a-f]{64}\s*", digest) for digest in hashes), line
        made = Requirement(requirement)
        assert canonicalize_name(made.name) not in found
        found[canonicalize_name(made.name)] = made
    return found


def test_every_image_has_its_file_and_its_lock() -> None:
    assert NAMES == sorted(lock.IMAGES) == ["cpu", "cuda", "jetpack6", "jetpack7"]
    assert {path.stem for path in FOLDER.glob("*.txt")} == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_the_files_are_as_plain_as_they_are_read(name: str) -> None:
    text = (FOLDER / f"{name}.Dockerfile").read_text("utf-8")
    assert "<<" not in text and "# escape" not in text and "# syntax" not in text
    known = {"ADD", "ARG", "CMD", "COPY", "ENTRYPOINT", "ENV", "EXPOSE", "FROM", "HEALTHCHECK"}
    assert {done.name for done in instructions(name)} <= known | {"RUN", "USER", "WORKDIR"}


@pytest.mark.parametrize("name", NAMES)
def test_a_base_is_pinned_and_one_for_all_stages(name: str) -> None:
    bases = {base.partition(" ")[0] for base in of(name, "FROM")}
    (base,) = bases
    tag = base.rpartition("/")[2].partition(":")[2]
    assert re.search(r"\d+\.\d+\.\d+", tag), f"{base} has no version of three numbers"


@pytest.mark.parametrize("name", NAMES)
def test_the_last_stage_is_run_by_a_user_without_rights(name: str) -> None:
    done = instructions(name)
    last = max(i for i, step in enumerate(done) if step.name == "FROM")
    users = [step.words for step in done[last:] if step.name == "USER"]
    assert users == ["alm"]
    after = [step.name for step in done[last:]]
    assert "RUN" not in after[after.index("USER") :]  # nothing else is done as root later
    assert any("useradd" in step.words and "--uid 10001" in step.words for step in done[last:])


@pytest.mark.parametrize("name", NAMES)
def test_it_is_healthy_where_the_server_says_so(name: str) -> None:
    (health,) = of(name, "HEALTHCHECK")
    assert "http://127.0.0.1:8000/health" in health and "/health" in guard.OPEN
    assert all(f"--{word}=" in health for word in ("interval", "timeout", "start-period"))
    assert of(name, "EXPOSE") == ["8000"]
    assert of(name, "ENTRYPOINT") == ['["alm"]']
    (words,) = of(name, "CMD")
    assert words.startswith('["serve", "/model", "--host", "0.0.0.0"')


@pytest.mark.parametrize("name", NAMES)
def test_packages_are_pinned_by_hash_and_the_wheel_is_copied_in(name: str) -> None:
    installs = [
        part
        for run in of(name, "RUN")
        for part in run.split("&&")
        if re.search(r"\bpip\d? install\b", part)
    ]
    first, second = installs
    assert "--require-hashes" in first and f"-r /tmp/{name}.txt" in first
    assert "--no-deps" in first and "--only-binary :all:" in first
    assert "--no-index" in second and "/tmp/alm_edge-*.whl" in second
    assert {f"docker/{name}.txt /tmp/", "dist/alm_edge-*.whl /tmp/"} <= set(of(name, "COPY"))
    assert all("--no-cache-dir" in install for install in installs)


@pytest.mark.parametrize("name", NAMES)
def test_what_apt_brings_is_cleared_away(name: str) -> None:
    for run in of(name, "RUN"):
        if "apt-get install" in run:
            assert "--no-install-recommends" in run and "rm -rf /var/lib/apt/lists/*" in run
            assert run.count("=$TENSORRT") == 4


@pytest.mark.parametrize("name", NAMES)
def test_no_secret_is_in_an_image_and_nothing_but_its_files_is_sent(name: str) -> None:
    assert not SECRET.search((FOLDER / f"{name}.Dockerfile").read_text("utf-8"))
    sent = (ROOT / ".dockerignore").read_text("utf-8").splitlines()
    assert [line for line in sent if not line.startswith("#")] == [
        "*",
        "!dist/*.whl",
        "!docker/*.txt",
    ]


@pytest.mark.parametrize("name", NAMES)
def test_the_lock_satisfies_pyproject_on_the_images_machine(name: str) -> None:
    image, found = lock.IMAGES[name], pins(name)
    extras = PROJECT["optional-dependencies"]
    wanted = [*PROJECT["dependencies"], *image.more]
    wanted += [line for extra in image.extras for line in extras[extra]]
    place = {"python_version": image.python, "sys_platform": "linux", "platform_system": "Linux"}
    for requirement in map(Requirement, wanted):
        if requirement.marker is None or requirement.marker.evaluate(place):
            pin = found[canonicalize_name(requirement.name)]
            (version,) = pin.specifier
            assert version.operator == "==" and "*" not in version.version
            assert requirement.specifier.contains(version.version, prereleases=True), requirement
    engines = {"onnxruntime", "onnxruntime-gpu"} & found.keys()
    assert len(engines) == 1  # two of them share a name
    assert "torch" not in found and "alm-edge" not in found


def test_a_package_has_the_version_that_was_tested() -> None:
    text = (ROOT / "requirements" / "workshop.txt").read_text("utf-8")
    tested: dict[str, set[str]] = {}
    for package, version in re.findall(r"^([\w.-]+)==([\w.]+)", text, re.MULTILINE):
        tested.setdefault(canonicalize_name(package), set()).add(version)
    for name in NAMES:
        for package, pin in pins(name).items():
            (version,) = pin.specifier
            assert version.version in tested.get(package, {version.version}), (name, package)


@pytest.mark.parametrize(
    ("name", "python", "cuda", "tensorrt"),
    [("jetpack6", "3.10", "12.6", "10.3.0"), ("jetpack7", "3.12", "13.2", "10.16.2")],
)
def test_the_images_of_a_jetson_have_what_its_page_says(
    name: str, python: str, cuda: str, tensorrt: str
) -> None:
    column = int(name[-1]) - 5
    rows = {
        cells[0].strip("`"): cells[column].strip("`")
        for line in PAGE.splitlines()
        if len(cells := [cell.strip() for cell in line.strip("| ").split("|")]) == 3
    }
    assert (rows["Python"], rows["CUDA"], rows["TensorRT"]) == (python, cuda, tensorrt)
    assert rows["image"] == f"docker/{name}.Dockerfile"
    assert lock.IMAGES[name].python == python
    (pin,) = pins(name)["cuda-bindings"].specifier
    assert pin.version.startswith(f"{rows['cuda-bindings']}.")
    (argument,) = of(name, "ARG")
    assert argument.startswith(f"TENSORRT={tensorrt}.")
    assert any(f"python{python} -m venv --system-site-packages" in run for run in of(name, "RUN"))
