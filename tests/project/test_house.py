"""The house: imports lead down, no circle, small files, and a picture that is drawn from them."""

from __future__ import annotations

import ast
import re
import statistics
import sys
from importlib import metadata

import pytest

from tests import ROOT

sys.path.insert(0, str(ROOT / "docs"))

import floors  # noqa: E402  # pyright: ignore[reportMissingImports]

ALM = ROOT / "runtime" / "alm"
FILES = sorted(ALM.rglob("*.py"))
MAP = (ROOT / "docs" / "architecture.md").read_text("utf-8")

MOST_FILES = 12  # in a folder
MOST_LINES, MEDIAN_LINES = 300, 120  # of a file
MOST_BODY = 60  # lines of a function that is no command


def test_rooms_stand_on_floors_and_every_import_leads_down() -> None:
    uses = floors.rooms()
    level = floors.floors(uses)
    assert {"errors", "ports", "generation", "cli", "wrappers", "exporters"} <= level.keys()
    assert all(level[used] < level[room] for room, needs in uses.items() for used in needs)
    tops = [name for name, floor in level.items() if floor == max(level.values())]
    assert tops == ["export.py"]


def test_a_circle_of_rooms_is_seen() -> None:
    with pytest.raises(floors.Circle, match="a, b"):
        floors.floors({"a": {"b"}, "b": {"a"}, "c": set()})


def test_no_file_imports_one_that_leads_back_to_it() -> None:
    uses = floors.files()
    assert len(uses) > 150 and "alm.decoding.search" in uses["alm.decoding.run"]
    assert floors.circles(uses) == set()


def test_a_circle_of_files_is_seen() -> None:
    uses = {"a": {"b"}, "b": {"c"}, "c": {"b", "d"}, "d": set()}
    assert floors.circles(uses) == {"b", "c"}


def test_an_import_is_seen_wherever_it_stands() -> None:
    source = "import alm.audio.reader\ndef f():\n    from alm.cli import chat\n"
    assert {floors.room_of(name) for name in floors.imports(source)} == {"audio", "cli"}


def test_the_picture_is_drawn_from_these_imports() -> None:
    assert floors.PICTURE.read_text("utf-8") == floors.svg(), "run: python docs/floors.py"


def test_folders_are_small() -> None:
    sizes = {folder: len(list(folder.glob("*.py"))) for folder in {f.parent for f in FILES}}
    large = {str(f): n for f, n in sizes.items() if n - (f / "__init__.py").is_file() > MOST_FILES}
    assert not large


def test_files_and_functions_are_short() -> None:
    lengths = {file: len(file.read_text("utf-8").splitlines()) for file in FILES}
    assert {str(f): n for f, n in lengths.items() if n > MOST_LINES} == {}
    assert statistics.median(lengths.values()) <= MEDIAN_LINES
    long = {
        f"{file.name}: {node.name}"
        for file in FILES
        for node in ast.walk(ast.parse(file.read_text("utf-8")))
        if isinstance(node, ast.FunctionDef)
        and (node.end_lineno or 0) - node.lineno >= MOST_BODY
        and not node.decorator_list  # a command's options take a line or more each
    }
    assert long == set()


def test_the_map_names_every_room_and_no_file_that_is_not_there() -> None:
    rooms = {p.name for p in ALM.iterdir() if p.is_dir() and (p / "__init__.py").is_file()}
    assert {room for room in rooms if f"`{room}/`" not in MAP} == set()
    files = {p.stem for p in ALM.glob("*.py")} - {"__init__"}
    assert {name for name in files if f"`{name}`" not in MAP} == set()
    named = set(re.findall(r"`([\w/]+\.py)`", MAP))
    homes = (ROOT, ALM, ROOT / "wrappers", ROOT / "exporters", ALM / "decoding", ALM / "generation")
    assert named
    assert {n for n in named if not any((home / n).is_file() for home in homes)} == set()


def test_no_script_has_the_name_of_a_package_that_it_would_hide() -> None:
    """Python looks into a script's own folder first: bench/triton.py hid triton from torch."""
    installed = set(metadata.packages_distributions()) | {"triton", "tensorrt", "cupy", "ray"}
    scripts = {file.stem for file in (ROOT / "bench").glob("*.py")}
    assert scripts & (installed - {"bench"}) == set()
