"""Who speaks when: a small model that was taught to say it, through alm-run's formats."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import alm
from alm.text.segments import Segment
from tests.conftest import run_export
from tests.runtime.cli.commands import Capture, alm_run, sound
from tests.wrappers.families import tiny_moss, tiny_qwen3_asr
from tests.wrappers.families.tiny_hf import noise

RATE = 16_000
CLIP = noise(5 * RATE)
SAID = "[0.48][S01] Hi there.[1.66][1.5][S02] Bye, all.[4.9]"
SPOKEN = (
    Segment(0.48, 1.66, "Hi there.", speaker="S01"),
    Segment(1.5, 4.9, "Bye, all.", speaker="S02"),
)
WORDS = ("transcribe", "--greedy", "--num-beams", "1", "--max-new-tokens", "80")


def greedy(most: int = 80) -> dict[str, Any]:
    """Options of a greedy answer of so many tokens."""
    return dict(do_sample=False, num_beams=1, max_new_tokens=most)


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("speakers")
    tiny_moss.taught(folder / "model", CLIP, SAID)
    words = ("--precision", "fp32", "--no-simplify", "--out", folder / "artifacts")
    run_export("--model", folder / "model", *words)
    return folder / "artifacts"


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sound(tmp_path_factory.mktemp("clips") / "five.wav", CLIP)


@pytest.fixture(scope="module")
def aligner(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("aligner")
    tiny_qwen3_asr.aligner(folder / "model")
    run_export("--model", folder / "model", "--no-simplify", "--out", folder / "artifacts")
    return folder / "artifacts"


def test_text_is_what_the_model_said(engine: Path, file: Path, capfd: Capture) -> None:
    assert alm_run("--engine", engine, file, *WORDS) == 0
    assert capfd.readouterr() == (SAID + "\n", "")
    model = alm.load(engine, "cpu")
    pieces = [*model.stream(file, "transcribe", **greedy())]
    assert len(pieces) > 1 and "".join(pieces) == SAID
    answer = model.generate(file, "transcribe", **greedy())
    assert answer.text == SAID and answer.segments == SPOKEN and answer.notes == ()


def test_json_has_segments_with_their_speakers(engine: Path, file: Path, capfd: Capture) -> None:
    assert alm_run("--engine", engine, file, *WORDS, "--format", "json") == 0
    said = capfd.readouterr()
    plain = json.loads(said.out)
    assert said.err == "" and plain["text"] == SAID
    assert [{k: v for k, v in s.items() if k != "words"} for s in plain["segments"]] == [
        {"start": 0.48, "end": 1.66, "text": "Hi there.", "speaker": "S01"},
        {"start": 1.5, "end": 4.9, "text": "Bye, all.", "speaker": "S02"},
    ]


def test_subtitles_show_who_speaks(engine: Path, file: Path, capfd: Capture) -> None:
    assert alm_run("--engine", engine, file, *WORDS, "--format", "srt") == 0
    assert capfd.readouterr() == (
        "1\n00:00:00,480 --> 00:00:01,660\nS01: Hi there.\n\n"
        "2\n00:00:01,500 --> 00:00:04,900\nS02: Bye, all.\n",
        "",
    )
    assert alm_run("--engine", engine, file, *WORDS, "--format", "vtt") == 0
    assert capfd.readouterr() == (
        "WEBVTT\n\n00:00:00.480 --> 00:00:01.660\n<v S01>Hi there.\n"
        "\n00:00:01.500 --> 00:00:04.900\n<v S02>Bye, all.\n",
        "",
    )


def test_a_cut_answer_keeps_what_it_had(engine: Path, file: Path) -> None:
    model = alm.load(engine, "cpu")
    for most in range(2, len(SAID), 5):
        answer = model.generate(file, "transcribe", **greedy(most))
        assert answer.text == SAID[:most].strip()
        assert all(0 <= s.start <= s.end <= 5 for s in answer.segments)
        assert "the answer was cut" in answer.notes[-1]
    answer = model.generate(file, "transcribe", **greedy(SAID.index("ye,")))
    assert answer.segments == (SPOKEN[0], Segment(1.5, 5.0, "B", speaker="S02"))
    assert "without an end behind the start: 1 of the answer's 2 segments" in answer.notes[0]


def test_with_an_aligner_words_have_times_and_segments_their_speakers(
    engine: Path, aligner: Path, file: Path, capfd: Capture
) -> None:
    words = ("--engine", engine, file, *WORDS, "--align", aligner)
    assert alm_run(*words, "--format", "json") == 0
    plain = json.loads(capfd.readouterr().out)
    assert plain["text"] == SAID
    said = [
        (segment["speaker"], word["text"])
        for segment in plain["segments"]
        for word in segment["words"]
    ]
    assert said == [("S01", "Hi"), ("S01", "there"), ("S02", "Bye"), ("S02", "all")]
    texts = {who: "" for who in ("S01", "S02")}
    for segment in plain["segments"]:
        texts[segment["speaker"]] += " " + segment["text"]
        spans = [time for word in segment["words"] for time in (word["start"], word["end"])]
        assert [segment["start"], segment["end"]] == [spans[0], spans[-1]] and spans == sorted(
            spans
        )
    assert texts == {"S01": " Hi there.", "S02": " Bye, all."}
    assert alm_run(*words, "--format", "vtt") == 0
    printed = capfd.readouterr()
    assert "<v S01>Hi" in printed.out and "<v S02>Bye" in printed.out and printed.err == ""


def test_times_of_a_later_piece_are_those_of_the_recording(engine: Path) -> None:
    model = alm.load(engine, "cpu")
    model.parts.rules.shorten(5)
    answer = model.generate(np.concatenate([CLIP, CLIP]), "transcribe", **greedy())
    assert answer.windows == 2 and answer.text == f"{SAID} {SAID}"
    assert answer.segments[:2] == SPOKEN
    assert [(s.start, s.end, s.speaker) for s in answer.segments[2:]] == [
        (5.48, 6.66, "S01"),
        (6.5, 9.9, "S02"),
    ]
    assert answer.notes == ("each of the 2 pieces numbers its speakers anew",)


def test_an_answer_without_times_says_so(engine: Path, file: Path, capfd: Capture) -> None:
    words = ("--engine", engine, file, "What is it about?", *WORDS[1:-1], "4", "--format", "srt")
    assert alm_run(*words) == 0
    printed = capfd.readouterr()
    assert printed.out.startswith("1\n00:00:0")
    assert "cut after 4 tokens" in printed.err
