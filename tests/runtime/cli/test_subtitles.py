"""alm-run --format and --align: subtitles on stdout, what they rest on on stderr."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import alm
from alm.text import segments
from tests.conftest import run_export
from tests.reference import moving
from tests.runtime.cli.commands import Capture, alm_run, refused, sound
from tests.wrappers.families import tiny_qwen3_asr

SHORT = ("--greedy", "--num-beams", "1", "--max-new-tokens", "6")


@pytest.fixture(scope="module")
def nine_seconds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """More than two windows of the tiny model."""
    pcm = moving(9 * 16_000, 16_000, 7)
    return sound(tmp_path_factory.mktemp("clips") / "nine.wav", pcm)


@pytest.fixture(scope="module")
def aligner(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("aligner")
    tiny_qwen3_asr.aligner(folder / "model")
    run_export("--model", folder / "model", "--no-simplify", "--out", folder / "artifacts")
    return folder / "artifacts"


def test_without_an_aligner_a_cue_is_a_window_and_a_note_says_so(
    artifacts: Path, nine_seconds: Path, capfd: Capture
) -> None:
    words = ("--engine", artifacts, nine_seconds, "transcribe", *SHORT)
    assert alm_run(*words, "--format", "srt") == 0
    printed = capfd.readouterr()
    answer = alm.load(artifacts).generate(
        str(nine_seconds), "transcribe", do_sample=False, num_beams=1, max_new_tokens=6
    )
    assert printed.out == segments.srt(answer.segments)
    assert [(s.start, s.end) for s in answer.segments][0][0] == 0
    assert answer.segments[-1].end == 9
    assert "the times are those of whole windows; --align DIR times every word" in printed.err


def test_with_an_aligner_the_json_has_words(
    artifacts: Path, aligner: Path, nine_seconds: Path, capfd: Capture
) -> None:
    words = ("--engine", artifacts, nine_seconds, "transcribe", *SHORT, "--align", aligner)
    assert alm_run(*words, "--format", "json") == 0
    [line] = capfd.readouterr().out.splitlines()
    plain = json.loads(line)
    spoken = [word["text"] for segment in plain["segments"] for word in segment["words"]]
    assert spoken and all(word in plain["text"] for word in spoken)
    assert alm_run(*words, "--format", "vtt") == 0
    printed = capfd.readouterr()
    assert printed.out.startswith("WEBVTT\n\n00:00:")
    assert "whole windows" not in printed.err


def test_forms_that_contradict_each_other_are_refused(
    artifacts: Path, nine_seconds: Path, capfd: Capture
) -> None:
    words = ("--engine", artifacts, nine_seconds, "transcribe")
    for more, sentence in (
        (("--format", "ass"), "--format is one of text, json, srt, vtt, not 'ass'"),
        (("--format", "srt", "--json"), "--json and --format srt are two forms of one answer"),
        (("--format", "vtt", "--chat"), "--format vtt is one file of one clip"),
        (("--align", artifacts, "--chat"), "--chat is one conversation"),
    ):
        assert sentence in refused(capfd, *words, *more)[1]
    several = ("--engine", artifacts, nine_seconds, nine_seconds, "transcribe", "--format", "srt")
    assert "run alm-run for each" in refused(capfd, *several)[1]
    assert "answers with text, and --align wants" in refused(capfd, *words, "--align", artifacts)[1]
