"""Figures in the pages are those of bench/results, wherever they stand; links lead somewhere."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import ROOT

PAGES = [
    *(ROOT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "demo/README.md")),
    *sorted((ROOT / "docs").glob("*.md")),
]
RESULTS = ROOT / "bench" / "results"
# What a row of a table of accuracy is called, and its kind of clip in accuracy.json.
KINDS = {
    "espeak-ng voices never heard": "voices",
    "new takes of known speakers": "takes",
    "a speaker never heard": "stranger",
    "new voices over a sound": "over",
    "captions that are not exactly right": "captions",
    "captions of short sounds": "hard",
}
SHAPES = {"Llama-3.2-1B": "llama32_1b", "Llama-3.2-3B": "llama32_3b", "Whisper": "whisper_turbo"}
FOLDERS = {"without VNNI": "without_vnni", "with AMX": "with_amx"}  # of bench/results, by heading

Table = tuple[str, list[str], list[list[str]]]  # the heading above it, its head, its rows


def tables(page: Path) -> Iterator[Table]:
    """The tables of a page."""
    heading, block = "", list[list[str]]()
    for line in [*page.read_text("utf-8").splitlines(), ""]:
        if line.startswith("|"):
            block.append([cell.strip() for cell in line.strip("|").split("|")])
            continue
        if len(block) > 2:
            yield heading, block[0], block[2:]
        block = []
        heading = line if line.startswith("#") else heading


def measured() -> dict[str, dict[str, str]]:
    """Precision -> what a row says: megabytes, and the errors of each kind."""
    rows = json.loads((RESULTS / "accuracy.json").read_text("utf-8"))["rows"]
    return {
        row["precision"]: {"megabytes": f"{row['bytes'] / 1e6:.1f}"}
        | {kind: f"{error:.1f}" for kind, error in row["errors"].items()}
        for row in rows
    }


def kind_of(label: str) -> str:
    return next((kind for words, kind in KINDS.items() if words in label), label)


def of_accuracy(page: Path) -> list[Table]:
    return [found for found in tables(page) if found[1][0] == "percent wrong"]


@pytest.mark.parametrize("name", ["docs/precision.md", "demo/README.md"])
def test_tables_of_accuracy_are_what_was_measured(name: str) -> None:
    truth = measured()
    (found,) = of_accuracy(ROOT / name)
    _, head, rows = found
    precisions = [cell for cell in head[1:] if cell != "wanted"]
    assert len(precisions) >= 6 and {kind_of(row[0]) for row in rows} >= set(KINDS.values())
    for row in rows:
        for precision, cell in zip(precisions, row[1:], strict=False):
            assert cell == truth[precision][kind_of(row[0])], (precision, row[0])


def test_no_other_page_has_a_table_of_accuracy() -> None:
    there = {page.relative_to(ROOT).as_posix() for page in PAGES if of_accuracy(page)}
    assert there == {"docs/precision.md", "demo/README.md"}


def test_the_page_of_accuracy_is_its_data() -> None:
    (found,) = tables(RESULTS / "accuracy.md")
    _, head, rows = found
    data = json.loads((RESULTS / "accuracy.json").read_text("utf-8"))["rows"]
    assert [row[0] for row in rows] == [row["precision"] for row in data]
    for row, said in zip(rows, data, strict=True):
        cells = dict(zip(head, row, strict=True))
        assert cells["MB"] == f"{said['bytes'] / 1e6:.1f}"
        assert all(cells[kind] == f"{error:.2f}" for kind, error in said["errors"].items())


def peers(shape: str, folder: str = "") -> dict[str, dict[str, str]]:
    """Label -> column -> median, of a shape's table in a folder's peers.md."""
    text = (RESULTS / folder / "peers.md").read_text("utf-8")
    sections = {heading.strip("# "): heading for heading in re.findall(r"^## .*$", text, re.M)}
    lines = text[text.index(sections[shape]) :].splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("| | load s"))
    head = [cell.strip() for cell in lines[start].strip("|").split("|")]
    found = {}
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        cells = [cell.strip().split(" (")[0] for cell in line.strip("|").split("|")]
        label = line.strip("|").split("|")[0].strip().strip("*")
        found[label] = dict(zip(head, cells, strict=True))
    return found


def test_tables_beside_others_are_what_was_measured() -> None:
    page = ROOT / "docs" / "measurements.md"
    seen = 0
    for heading, head, rows in tables(page):
        shape = next((shape for words, shape in SHAPES.items() if words in heading), "")
        if not shape:
            continue
        folder = next((name for words, name in FOLDERS.items() if words in heading), "")
        truth = peers(shape, folder)
        for row in rows:
            for column, cell in zip(head[1:], row[1:], strict=True):
                assert cell == truth[row[0].strip("*")][column], (heading, row[0], column)
                seen += 1
    assert seen > 60


def test_the_readmes_number_is_the_measured_one() -> None:
    page = (ROOT / "README.md").read_text("utf-8")
    rows = peers("llama32_1b")
    steps = sorted((float(row["ms a token"]), label) for label, row in rows.items())
    assert steps[0][1] == "ours, int4"
    assert f"**{steps[0][0]} ms a token**" in page
    assert f"took {steps[1][0]}:" in page
    share = rows["ours, int4"]["x roofline"]
    assert f"{share} of the roofline's time where memory gives 33 GB/s" in page
    assert f"takes {share} of the roofline's time" in (ROOT / "docs/measurements.md").read_text(
        "utf-8"
    )


def test_the_readme_is_short_and_its_first_screen_has_a_number_and_a_picture() -> None:
    page = (ROOT / "README.md").read_text("utf-8")
    prose = [line for line in page.splitlines() if not line.startswith("|")]
    assert len(" ".join(prose).split()) <= 850
    first = page.partition("\n## ")[0]
    assert "![" in first and re.search(r"\*\*[\d.]+ ms", first)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_link_leads_to_a_file(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text("utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), target


def test_the_changelog_names_every_lever_dialect_and_target() -> None:
    from alm import registry, targets
    from exporters import levers
    from wrappers import dialects

    page = (ROOT / "CHANGELOG.md").read_text("utf-8")
    names = [*registry.names(levers), *registry.names(dialects), *targets.names()]
    assert [name for name in names if f"`{name}`" not in page] == []


def test_every_lever_has_its_bound_in_the_page() -> None:
    from alm import registry
    from exporters import levers

    rows = [row for _, head, rows in tables(ROOT / "docs/precision.md") for row in rows
            if head[:2] == ["lever", "bound"]]  # fmt: skip
    for name in registry.names(levers):
        (row,) = [row for row in rows if f"`{name}`" in row[0]]
        storage = registry.pick(levers, name, "lever").Lever.STORAGE
        bounds = {role: each.bound for role, each in storage.items()}
        said = {float(number) for number in re.findall(r"[\d.]+", row[1])}
        assert said == set(bounds.values()), name
