"""How far alm batch is: lines where stderr is no terminal, a bar where it is one."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest

from alm.cli.reports.progress import Progress
from tests.runtime.batch.many import SHORT, begun, lines, noises


class Clock:
    """Seconds that a test sets."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def row(size: int, seconds: float = 2.0) -> dict[str, Any]:
    return {"file": "a.wav", "source": {"size": size}, "audio_seconds": seconds}


def test_a_line_now_and_then_tells_speed_and_time_left() -> None:
    said: list[str] = []
    clock = Clock()
    with Progress(5, 1000, said.append, clock) as progress:
        clock.now += 9.0
        progress.add(row(100))
        assert said == []
        clock.now += 1.0
        progress.add(row(100))
        assert said == ["2 of 5 files, 0.2 files/s, 0.4 s of audio/s, 0:40 left"]
        bad = {"file": "b.wav", "error": "there is no file b.wav", "source": {"size": None}}
        progress.add(bad)
        assert said[1:] == ["error: there is no file b.wav"]
        clock.now += 7190.0
        progress.add(bad | {"error": "out of\x1b memory"})
        assert said[2] == "error: b.wav: out of\ufffd memory"
        assert (
            said[3]
            == "4 of 5 files, 2 failed, 0.000556 files/s, 0.000556 s of audio/s, 8:00:00 left"
        )
    assert progress.done == 4 and progress.failed == 2


def test_files_of_unknown_size_count_alike() -> None:
    clock = Clock()
    progress = Progress(4, 0, lambda _: None, clock)
    assert progress.left() == "-:--"
    clock.now += 5.0
    progress.add({"file": "a", "error": "a", "source": {"size": None}})
    assert progress.left() == "0:15"


@pytest.mark.skipif(sys.platform == "win32", reason="no pseudo-terminal")
def test_a_terminal_gets_a_bar(artifacts: Path, tmp_path: Path) -> None:
    noises(tmp_path / "clips", 3)
    (tmp_path / "clips" / "bad.wav").write_text("no [b]sound[/b]")
    ours, theirs = os.openpty()
    out = tmp_path / "rows.jsonl"
    with begun(artifacts, tmp_path / "clips", "--out", out, *SHORT, stderr=theirs) as run:
        os.close(theirs)
        said = b""
        try:
            while block := os.read(ours, 4096):
                said += block
        except OSError:  # the other end is closed
            pass
        assert run.wait(30) == 1
    os.close(ours)
    assert b"4/4" in said and b"files/s" in said and b"error: " in said
    assert lines(out) == 4
