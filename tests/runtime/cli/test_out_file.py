"""--out FILE of every command that finds something: what is written, and what cannot be."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from alm.cli import alm_commands, exit_status

Capture = pytest.CaptureFixture[str]
COMMANDS = {
    "inspect": ("inspect", "--no-verify"),
    "lint": ("lint", "--target", "cpu"),
    "plan": ("plan", "--device", "agx-orin-64gb"),
}

every = pytest.mark.parametrize("name", COMMANDS)


def alm(folder: Path, name: str, *words: str | Path) -> int:
    first, *rest = COMMANDS[name]
    return exit_status.run(alm_commands.app, [first, str(folder), *rest, *map(str, words)])


@every
def test_the_file_holds_what_json_prints_and_the_tables_are_printed_still(
    artifacts: Path, tmp_path: Path, capsys: Capture, name: str
) -> None:
    file = tmp_path / "found.json"
    assert alm(artifacts, name, "--json") == 0
    data = json.loads(capsys.readouterr().out)
    assert alm(artifacts, name) == 0
    shown = capsys.readouterr()
    assert alm(artifacts, name, "--out", file) == 0
    assert capsys.readouterr() == shown and json.loads(file.read_text("utf-8")) == data
    file.unlink()
    assert alm(artifacts, name, "--json", "--out", file) == 0
    assert json.loads(capsys.readouterr().out) == data == json.loads(file.read_text("utf-8"))


@every
def test_a_place_that_cannot_be_written_is_one_sentence(
    artifacts: Path, tmp_path: Path, capsys: Capture, name: str
) -> None:
    for place, words in (
        (tmp_path, "is a folder; wanted a file"),
        (tmp_path / "no" / "found.json", "there is no folder"),
        (tmp_path / ("x" * 300), "cannot be written: "),
    ):
        assert alm(artifacts, name, "--out", place) in (1, 2)
        said = capsys.readouterr()
        assert said.out == "" and said.err.count("\n") == 1 and words in said.err
        assert "unexpected" not in said.err
    assert list(tmp_path.iterdir()) == []


def test_a_file_is_written_for_graphs_that_a_target_refuses_too(
    artifacts: Path, tmp_path: Path, capsys: Capture
) -> None:
    file = tmp_path / "found.json"
    words = ["lint", str(artifacts), "--target", "trt-jetpack6", "--out", str(file)]
    assert exit_status.run(alm_commands.app, words) == 1
    assert json.loads(file.read_text("utf-8"))["refused"] and capsys.readouterr().out


def test_a_graph_that_is_served_writes_nothing(
    artifacts: Path, tmp_path: Path, capsys: Capture
) -> None:
    assert alm(artifacts, "inspect", "--netron", "mel", "--out", tmp_path / "a.json") == 2
    assert "--netron serves a graph" in capsys.readouterr().err and not list(tmp_path.iterdir())
