"""alm-run --live with a model that hears clips: lines, JSON lines, a terminal, an interrupt."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import soundfile

from tests import ROOT
from tests.runtime.cli.commands import ALM_RUN, Capture, alm_run, process

LAMP, DIGITS = ROOT / "demo" / "lamp.wav", ROOT / "demo" / "digits.wav"
WORDS = "turn on the lamp in the kitchen"


def test_a_clip_is_finals_a_line_each_where_no_terminal_is(demo: Path, capsys: Capture) -> None:
    words = ("--engine", demo, "--provider", "cpu", "--live")
    assert alm_run(*words, LAMP) == 0
    assert capsys.readouterr() == (WORDS + "\n", "")
    assert alm_run(*words, LAMP, "describe") == 0
    assert capsys.readouterr().out == "a person speaking\n"
    assert alm_run(*words, DIGITS, "--max-new-tokens", "2") == 0
    said = capsys.readouterr()
    assert said.out and "note: " in said.err and "--max-new-tokens" in said.err


def test_json_lines_tell_partials_and_finals_with_their_times(demo: Path, capsys: Capture) -> None:
    words = ("--engine", demo, "--provider", "cpu", "--live", "--json", DIGITS)
    began = time.monotonic()
    assert alm_run(*words, "--pace", "2") == 0
    assert time.monotonic() - began > 0.9  # two seconds of sound, twice as fast
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    *partials, final = events
    assert final.pop("latency") >= 0 and final["event"] == "final"
    assert final == {
        **{"event": "final", "utterance": 0, "start": 0.0, "end": 1.984},
        **{"text": "four two eight eight one"},
    }
    for event in partials:
        assert event["event"] == "partial" and event["text"].startswith(event["certain"])
        assert event.keys() == final.keys() | {"certain", "latency"}


def test_an_interrupt_ends_the_utterance_and_prints_its_final(demo: Path) -> None:
    run = process(ALM_RUN, "--engine", demo, "--provider", "cpu", "--live", "--json", "-")
    assert run.stdin and run.stdout
    run.stdin.write(soundfile.read(LAMP, dtype="int16")[0].tobytes())
    run.stdin.flush()
    first = run.stdout.readline()  # it hears; the pipe stays open
    run.send_signal(signal.SIGINT)
    out, err = run.communicate(timeout=60)
    assert run.returncode == 0 and not err
    assert json.loads(first)["event"] == "partial"
    assert json.loads(out.splitlines()[-1])["text"] == WORDS


@pytest.mark.skipif(sys.platform == "win32", reason="there is no pty")
def test_a_terminal_has_one_line_that_is_written_anew(demo: Path) -> None:
    import pty

    ours, theirs = pty.openpty()
    words = ("--engine", demo, "--provider", "cpu", "--live", "--pace", "1", str(DIGITS))
    line = [sys.executable, "-c", ALM_RUN, *map(str, words)]
    env = os.environ | {"TERM": "xterm", "COLUMNS": "16"}
    run = subprocess.Popen(line, stdin=theirs, stdout=theirs, stderr=theirs, env=env)
    assert run.wait(timeout=60) == 0
    shown = os.read(ours, 2**16).decode()
    os.close(theirs)
    *partials, last = shown.split("\r\x1b[K")[1:]
    assert last == "four two eight eight one\r\n"  # finals are not cut
    plain = [text.replace("\x1b[2m", "").replace("\x1b[0m", "") for text in partials]
    assert plain and all(len(text) <= 15 for text in plain)
    assert all("\n" not in text for text in partials)
