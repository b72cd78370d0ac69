"""alm-run --chat: conversations from a pipe and from a terminal."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import alm
from tests.runtime.cli.commands import ALM_RUN, Capture, alm_run, process

SHORT = ("--max-new-tokens", "8", "--num-beams", "1")


def piped(*words: str | Path, lines: str) -> tuple[int, str, str]:
    run = process(ALM_RUN, *words, *SHORT)
    out, err = run.communicate(lines.encode(), timeout=300)
    return run.returncode, out.decode(), err.decode()


def test_every_line_is_a_turn_and_computes_only_what_is_new(artifacts: Path, clip: Path) -> None:
    lines = f"describe\n\nAnd now?\n/audio {clip}\nIs <audio> the same?\n"
    status, out, err = piped("--engine", artifacts, "--chat", "--json", clip, lines=lines)
    assert (status, err) == (0, "")
    said: list[dict[str, Any]] = [json.loads(line) for line in out.splitlines()]
    chat = alm.load(artifacts).chat(max_new_tokens=8, num_beams=1)
    wanted = [
        chat.ask("describe", str(clip)),
        chat.ask("And now?"),
        chat.ask("Is <audio> the same?", str(clip)),
    ]
    assert [each["token_ids"] for each in said] == [each.token_ids for each in wanted]
    assert said[0]["cached_tokens"] == 0 < said[1]["cached_tokens"] < said[2]["cached_tokens"]
    assert [each["audio_cached"] for each in said] == [0, 0, 1]


def test_quit_ends_it_and_what_follows_is_not_asked(artifacts: Path, clip: Path) -> None:
    status, out, _ = piped(
        "--engine", artifacts, "--chat", clip, lines="describe\n/quit\ndescribe\n"
    )
    alone = alm.load(artifacts).chat(max_new_tokens=8, num_beams=1).ask("describe", str(clip))
    assert status == 0 and out == alone.text + "\n"


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("/audio no/such.wav", "error: there is no file no/such.wav"),
        ("/audio", "error: unknown '/audio'; /audio FILE adds"),
        ("/sing la", "error: unknown '/sing la'"),
        ("hear <audio> and <audio>", "error: the prompt has places for 2 clips"),
    ],
)
def test_a_wrong_line_from_a_pipe_ends_it_after_what_was_answered(
    artifacts: Path, clip: Path, line: str, sentence: str
) -> None:
    status, out, err = piped(
        "--engine", artifacts, "--chat", clip, lines=f"describe\n{line}\ndescribe\n"
    )
    *notes, error = err.splitlines()
    assert status != 0 and error.startswith(sentence)
    assert all(note.startswith("note: the answer was cut") for note in notes)
    assert out.endswith("\n") and out.strip()


def test_a_clip_cannot_come_from_where_the_questions_come_from(
    artifacts: Path, capfd: Capture
) -> None:
    assert alm_run("--engine", artifacts, "--chat", "-") == 2
    assert "no clip can come from there" in capfd.readouterr().err


def test_several_clips_are_given_before_the_prompt(
    artifacts: Path, clip: Path, capfd: Capture
) -> None:
    words = ("--engine", artifacts, clip, clip, "Is <audio> after <audio>?", *SHORT)
    assert alm_run(*words, "--json") == 0
    said = json.loads(capfd.readouterr().out)
    model = alm.load(artifacts)
    options: dict[str, Any] = dict(max_new_tokens=8, num_beams=1)
    alone = model.generate([[str(clip)] * 2], "Is <audio> after <audio>?", **options)[0]
    assert said["token_ids"] == alone.token_ids and said["audio_seconds"] == 3.0
    assert alm_run("--engine", artifacts, clip, "describe", "well", *SHORT) == 1
    assert "there is no file describe; wanted an audio file" in capfd.readouterr().err


@pytest.mark.skipif(sys.platform == "win32", reason="there is no pty")
def test_at_a_terminal_a_wrong_line_costs_only_itself(artifacts: Path, clip: Path) -> None:
    import pty

    here, there = pty.openpty()
    run = process(ALM_RUN, "--engine", artifacts, "--chat", clip, *SHORT, stdin=there)
    os.close(there)
    for line in ("/sing\n", "hear <audio> and <audio>\n", "describe\n", "/quit\n"):
        time.sleep(0.1)
        os.write(here, line.encode())
    out, err = run.communicate(timeout=300)
    os.close(here)
    alone = alm.load(artifacts).chat(max_new_tokens=8, num_beams=1).ask("describe", str(clip))
    assert run.returncode == 0 and out.decode() == alone.text + "\n"
    said = err.decode()
    assert said.count("error: ") == 2 and said.startswith("/audio FILE adds") and "> " in said
