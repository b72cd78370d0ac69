"""The file of results: cut anywhere it is gone on with, and nothing else is ever written to."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from alm.batch import rows
from alm.batch.files import File, mark
from alm.batch.results import Results, Todo
from alm.errors import AlmError, BadArtifacts, BadOption, MissingFile

MADE = {"model": "0123", "prompt": "transcribe"}


@pytest.fixture
def files(tmp_path: Path) -> list[File]:
    """Five, whose names and texts are odd: a newline, bytes that are no UTF-8, other scripts."""
    names = (
        b"a.wav",
        "\u00fc\u4f60\u2028.wav".encode(),
        b"new\nline.wav",
        b"\xff.wav",
        b"\xfe.wav",
    )
    found = []
    for number, name in enumerate(names):
        path = os.path.join(os.fsencode(tmp_path), name)
        with open(path, "wb") as file:
            file.write(b"x" * number)
        found.append(File(os.fsdecode(name), os.fsdecode(path)))
    return found


def row(file: File, text: str = "said \u2028 \x07 so") -> rows.Row:
    return rows.answered(file, mark(file.path), MADE, {"text": text})


def go(out: Path, files: list[File], failing: bool = False, **options: Any) -> Todo:
    """A run that answers all that is to be done."""
    retry = options.pop("retry_failed", False)
    with Results(out, options.pop("made_with", MADE), **options) as results:
        todo = results.todo(files, retry)
        results.begin()
        for file in todo.files:
            bad = rows.failed(file, mark(file.path), MADE, f"{file.path} is\nno audio")
            results.add(bad if failing else row(file))
    return todo


def read(out: Path) -> list[dict[str, Any]]:
    text = out.read_bytes()
    assert text.endswith(b"\n") or not text
    return [json.loads(line) for line in text.decode("utf-8").splitlines()]


def paths(out: Path) -> list[str]:
    return [rows.read(rows.line(each)).path for each in read(out)]


@pytest.fixture
def memory() -> Iterator[Path]:
    """A folder that is no disk, where there is one: a thousand runs wait for theirs."""
    there = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=there if os.access(there, os.W_OK) else None) as folder:
        yield Path(folder)


def test_a_file_cut_at_any_byte_is_gone_on_with_to_one_row_a_file(
    files: list[File], memory: Path
) -> None:
    out, files = memory / "results.jsonl", files[1:4]
    assert go(out, files).files == files
    whole = out.read_bytes()
    assert paths(out) == [file.path for file in files]
    for cut in range(len(whole) + 1):
        out.write_bytes(whole[:cut])
        kept = whole[:cut].count(b"\n")
        assert go(out, files).files == files[kept:], cut
        assert out.read_bytes() == whole, cut
        assert sorted(p.name for p in memory.iterdir()) == ["results.jsonl"]


def test_zeros_of_a_machine_that_failed_are_cut_off_too(files: list[File], tmp_path: Path) -> None:
    out = tmp_path / "results.jsonl"
    go(out, files[:2])
    whole = out.read_bytes()
    out.write_bytes(whole + bytes(100))
    assert go(out, files[:2]).files == []
    assert out.read_bytes() == whole


def test_a_row_reads_as_one_line_of_json_whatever_names_it_holds(
    files: list[File], tmp_path: Path
) -> None:
    out = tmp_path / "results.jsonl"
    go(out, files)
    found = read(out)
    assert [each["file"] for each in found[:3]] == [file.given for file in files[:3]]
    assert [each["file"] for each in found[3:]] == ["\ufffd.wav", "\ufffd.wav"]
    hexes = [each["source"].get("path_hex") for each in found]
    assert hexes[:3] == [None] * 3
    assert [bytes.fromhex(each) for each in hexes[3:]] == [os.fsencode(f.path) for f in files[3:]]
    assert found[0]["text"] == "said \u2028 \x07 so"
    assert go(out, files).kept == len(files)


@pytest.mark.parametrize(
    "content", ["notes of mine", "RIFF....WAVE", '{"other": 1}\n', "\n", '{"file": 1}\n']
)
@pytest.mark.parametrize("fresh", [False, True])
def test_what_is_no_file_of_results_stays_as_it_is(
    content: str, fresh: bool, files: list[File], tmp_path: Path
) -> None:
    out = tmp_path / "results.jsonl"
    out.write_text(content)
    with pytest.raises(BadOption, match="holds no results of alm batch"):
        go(out, files, fresh=fresh)
    assert out.read_text() == content
    assert not (tmp_path / "results.jsonl.lock").exists()


def test_a_damaged_line_before_the_last_is_refused_by_its_number(
    files: list[File], tmp_path: Path
) -> None:
    out = tmp_path / "results.jsonl"
    go(out, files)
    lines = out.read_bytes().splitlines(keepends=True)
    damaged = b"".join([lines[0], lines[1][:50] + b"\n", *lines[2:]])
    out.write_bytes(damaged)
    with pytest.raises(BadOption, match="line 2 of .* is no row"):
        go(out, files)
    assert out.read_bytes() == damaged
    assert go(out, files, fresh=True).files == files
    assert out.read_bytes() == b"".join(lines)


@pytest.mark.parametrize(
    ("now", "said"),
    [
        (MADE | {"prompt": "describe"}, "prompt 'transcribe', and now it is 'describe'"),
        (MADE | {"model": "4567"}, "model '0123', and now it is '4567'"),
        (MADE | {"options": {"num_beams": 4}}, "options none, and now it is {'num_beams': 4}"),
    ],
)
def test_rows_of_another_model_prompt_or_options_are_refused(
    now: dict[str, Any], said: str, files: list[File], tmp_path: Path
) -> None:
    out = tmp_path / "results.jsonl"
    go(out, files[:3])
    with pytest.raises(BadOption) as error:
        go(out, files, made_with=now)
    assert said in str(error.value) and "--fresh" in str(error.value)


def test_an_answer_that_was_made_otherwise_is_not_written(
    files: list[File], tmp_path: Path
) -> None:
    with Results(tmp_path / "results.jsonl", MADE | {"model": "4567"}) as results:
        results.begin()
        with pytest.raises(BadArtifacts, match="on another machine"):
            results.add(row(files[0]))
    assert (tmp_path / "results.jsonl").read_bytes() == b""


def test_a_file_that_changed_is_answered_anew_and_its_old_row_goes(
    files: list[File], tmp_path: Path
) -> None:
    out = tmp_path / "results.jsonl"
    go(out, files)
    Path(files[1].path).write_bytes(b"y")
    os.utime(files[2].path)  # another time, the same content
    todo = go(out, files)
    assert todo.files == [files[1]] and todo.changed == 1 and todo.kept == 4
    others = [file.path for file in files if file is not files[1]]
    assert paths(out) == [*others, files[1].path]
    os.unlink(files[0].path)
    assert go(out, files).files == []  # what is gone was answered


def test_rows_of_errors_stay_until_they_are_asked_for_or_the_file_changes(
    files: list[File], tmp_path: Path
) -> None:
    out = tmp_path / "results.jsonl"
    gone = File("none.wav", str(tmp_path / "none.wav"))
    go(out, [gone, *files], failing=True)
    assert read(out)[1]["error"] == f"{files[0].path} is no audio"
    todo = go(out, [gone, *files])
    assert todo.files == [] and todo.failed == 6
    Path(gone.path).write_bytes(b"there now")
    assert go(out, [gone, *files]).files == [gone]
    assert go(out, [gone, *files], retry_failed=True).files == files
    assert sorted(paths(out)) == sorted(file.path for file in [gone, *files])


def test_of_two_rows_of_a_file_the_later_stays(files: list[File], tmp_path: Path) -> None:
    out = tmp_path / "results.jsonl"
    lines = [rows.line(row(files[0], text)) for text in ("one", "two")]
    out.write_bytes(b"".join([*lines, rows.line(row(files[1]))]))
    go(out, files[:3])
    assert [each["text"] for each in read(out)][0] == "two"
    assert paths(out) == [file.path for file in files[:3]]


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the results."""
    code = (
        "import sys, time; from pathlib import Path; from alm.batch.results import Results\n"
        "r = Results(Path(sys.argv[1]), {}); print('held', flush=True); time.sleep(60)"
    )
    line = [sys.executable, "-c", code, str(tmp_path / "results.jsonl")]
    with subprocess.Popen(line, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout and process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_two_runs_at_once_are_refused_and_a_dead_one_holds_nobody_up(
    holder: subprocess.Popen[str], files: list[File], tmp_path: Path
) -> None:
    out = tmp_path / "results.jsonl"
    with pytest.raises(BadOption, match=rf"another run \(process {holder.pid}\)"):
        go(out, files)
    holder.kill()
    holder.wait()
    assert (tmp_path / "results.jsonl.lock").exists()
    assert go(out, files).files == files
    assert not (tmp_path / "results.jsonl.lock").exists()


def test_a_full_disk_leaves_no_half_row(files: list[File], tmp_path: Path) -> None:
    import resource
    import signal

    out = tmp_path / "results.jsonl"
    go(out, files[:1])
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (out.stat().st_size + 50, before[1]))
        with pytest.raises(AlmError, match="cannot be written: File too large"):
            go(out, files)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    assert paths(out) == [files[0].path]
    assert go(out, files).kept == 1


def test_places_that_cannot_hold_results_are_refused(files: list[File], tmp_path: Path) -> None:
    with pytest.raises(BadOption, match="is a folder"):
        go(tmp_path, files)
    with pytest.raises(BadOption, match="no regular file"):
        go(Path(os.devnull), files)
    with pytest.raises(MissingFile, match="there is no folder"):
        go(tmp_path / "none" / "results.jsonl", files)


def test_results_are_written_through_a_link(files: list[File], tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    out = tmp_path / "results.jsonl"
    out.symlink_to(tmp_path / "disk" / "real.jsonl")
    go(out, files)
    Path(files[0].path).write_bytes(b"changed")
    go(out, files)
    assert out.is_symlink() and len(paths(tmp_path / "disk" / "real.jsonl")) == len(files)
