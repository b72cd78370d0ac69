"""The lock says what pyproject.toml asks for, for every Python and platform, by hash."""

from __future__ import annotations

import re
from typing import Any

import pytest
import tomli
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests import ROOT

FOLDER = ROOT / "requirements"
PROJECT: dict[str, Any] = tomli.loads((ROOT / "pyproject.toml").read_text("utf-8"))
EXTRAS = (  # what the environment of make has
    *("export", "ort", "openvino", "serve", "av", "grammar", "microphone", "ray", "hub", "sign"),
)

PYTHONS = ("3.10", "3.11", "3.12", "3.13")
PLATFORMS = {
    "linux": ("linux", "Linux", "x86_64"),
    "linux on arm": ("linux", "Linux", "aarch64"),
    "macos": ("darwin", "Darwin", "arm64"),
    "windows": ("win32", "Windows", "AMD64"),
}
CUDA = re.compile(r"torch$|triton$|nvidia-|cuda-")


def lines(name: str) -> list[tuple[Requirement, int]]:
    """The requirements of a lock file, each with the number of its hashes."""
    text = re.sub(r"#.*", "", (FOLDER / name).read_text("utf-8")).replace("\\\n", " ")
    found = []
    for line in filter(None, map(str.strip, text.splitlines())):
        requirement, *hashes = line.split("--hash=sha256:")
        assert all(re.fullmatch(r"[0-9a-f]{64}\s*", digest) for digest in hashes)
        found.append((Requirement(requirement), len(hashes)))
    return found


BUILD, WORKSHOP, TORCH, DEVICE = map(
    lines, ("build.txt", "workshop.txt", "torch.txt", "device.txt")
)


def group(name: str) -> list[str]:
    """The requirements of a dependency group, those of the groups in it included."""
    found: list[str] = []
    for entry in PROJECT["dependency-groups"][name]:
        found += [entry] if isinstance(entry, str) else group(entry["include-group"])
    return found


def asked(*extras: str) -> list[str]:
    """The requirements of the package with these extras."""
    project = PROJECT["project"]
    rest = [line for extra in extras for line in project["optional-dependencies"][extra]]
    return project["dependencies"] + rest


def environment(python: str, platform: str) -> dict[str, str]:
    system, name, machine = PLATFORMS[platform]
    return {
        "python_version": python,
        "python_full_version": f"{python}.1",
        "sys_platform": system,
        "platform_system": name,
        "platform_machine": machine,
        "os_name": "nt" if system == "win32" else "posix",
        "implementation_name": "cpython",
        "platform_python_implementation": "CPython",
    }


def chosen(entries: list[tuple[Requirement, int]], place: dict[str, str]) -> dict[str, str]:
    """What pip would install there: versions by name. A name may stand there only once."""
    found: dict[str, str] = {}
    for line, _ in entries:
        if line.marker is None or line.marker.evaluate(place):
            name = canonicalize_name(line.name)
            assert name not in found, f"{name} twice: {found[name]} and {line}"
            (pin,) = line.specifier
            found[name] = pin.version
    return found


def assert_satisfied(wanted: list[str], found: dict[str, str], place: dict[str, str]) -> None:
    for requirement in map(Requirement, wanted):
        if requirement.marker is None or requirement.marker.evaluate(place):
            version = found.get(canonicalize_name(requirement.name))
            assert version, f"{requirement} is not in the lock; try: make lock"
            assert requirement.specifier.contains(version, prereleases=True), (
                f"{requirement}, and the lock has {version}; try: make lock"
            )


@pytest.mark.parametrize("platform", PLATFORMS)
@pytest.mark.parametrize("python", PYTHONS)
def test_the_lock_satisfies_pyproject(python: str, platform: str) -> None:
    place = environment(python, platform)
    found = chosen(WORKSHOP + TORCH, place)
    assert_satisfied(asked(*EXTRAS) + group("dev"), found, place)
    assert_satisfied(asked("ort"), chosen(DEVICE, place), place)
    assert_satisfied(group("build"), chosen(BUILD, place), place)


@pytest.mark.parametrize("platform", PLATFORMS)
@pytest.mark.parametrize("python", PYTHONS)
def test_a_package_has_the_same_version_in_every_file(python: str, platform: str) -> None:
    place = environment(python, platform)
    whole = chosen(WORKSHOP, place).items()
    assert chosen(BUILD, place).items() <= whole
    assert chosen(DEVICE, place).items() <= whole


def test_every_line_is_one_version_with_its_hashes() -> None:
    for line, hashes in BUILD + WORKSHOP + TORCH + DEVICE:
        (pin,) = line.specifier
        assert pin.operator == "==" and "*" not in pin.version and hashes, str(line)


def test_torch_is_pinned_to_one_version_and_stands_apart_with_its_cuda() -> None:
    pins = {line.specifier for line, _ in TORCH if line.name == "torch"}
    wanted = {r.specifier for r in map(Requirement, asked("export")) if r.name == "torch"}
    assert len(pins) == 1 and pins == wanted
    assert all(CUDA.match(line.name) for line, _ in TORCH)
    assert not [line for line, _ in BUILD + WORKSHOP + DEVICE if CUDA.match(line.name)]


def test_no_file_of_the_checkout_pins_another_torch() -> None:
    (pin,) = (line.specifier for line, _ in TORCH if line.name == "torch")
    folders = ("runtime", "wrappers", "exporters", "bench", "demo", "docs", "requirements")
    paths = [path for folder in folders for path in (ROOT / folder).rglob("*")]
    paths += [ROOT / "Makefile", ROOT / ".ci" / "run", *ROOT.glob("*.*")]
    texts = [p for p in paths if p.suffix in {"", ".py", ".md", ".toml", ".txt"} and p.is_file()]
    named = {v for p in texts for v in re.findall(r"\btorch==+[\d.]*\d", p.read_text("utf-8"))}
    assert named == {f"torch{pin}"}


@pytest.mark.parametrize("platform", ["macos", "windows"])
def test_cuda_comes_with_torch_on_linux_alone(platform: str) -> None:
    assert set(chosen(TORCH, environment("3.12", platform))) == {"torch"}


def test_the_lock_names_no_index() -> None:
    for path in FOLDER.glob("*.txt"):
        text = path.read_text("utf-8")
        assert "://" not in text and "--index" not in text and "--find-links" not in text


def test_the_pythons_are_those_that_pyproject_names() -> None:
    named = [line.rpartition(" ")[2] for line in PROJECT["project"]["classifiers"]]
    assert [version for version in named if version.startswith("3.")] == list(PYTHONS)
