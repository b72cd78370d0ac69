"""The demo's words, heard through containers that FFmpeg reads."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import soundfile

import alm
from alm.generation.model import Model
from demo.clips import FOLDER
from tests import ROOT

pytest.importorskip("av")
from tests.runtime.audio.written import written  # noqa: E402

KINDS = {
    "m4a": ("mp4", "aac", "", 44_100),
    "webm": ("webm", "libopus", "", 48_000),
    "aac": ("adts", "aac", "", 44_100),
    "mp4": ("mp4", "aac", "mpeg4", 48_000),
    "mkv": ("matroska", "libopus", "mpeg4", 48_000),
}


@pytest.fixture(scope="module")
def model(demo: Path) -> Model:
    return alm.load(demo, provider="cpu")


def recorded(name: str, end: str) -> bytes:
    """A clip of the demo as a phone, a browser or a camera would have written it."""
    import soxr

    container, codec, pictures, rate = KINDS[end]
    pcm, own = soundfile.read(FOLDER / name, dtype="float32")
    pcm = soxr.resample(pcm, own, rate)
    return written(pcm[None].astype("float32"), rate, container, codec, pictures=pictures)


@pytest.mark.parametrize("end", KINDS)
@pytest.mark.parametrize("name", ["lamp.wav", "digits.wav"])
def test_the_words_are_those_of_the_wav(model: Model, name: str, end: str) -> None:
    wanted = model.generate(FOLDER / name, "transcribe")
    answer = model.generate(recorded(name, end), "transcribe")
    assert answer.text == wanted.text and answer.text
    assert answer.audio_seconds == pytest.approx(wanted.audio_seconds, abs=0.15)


def test_a_phones_recording_is_heard_from_stdin_and_as_subtitles(
    demo: Path, tmp_path: Path
) -> None:
    path = tmp_path / "lamp.m4a"
    path.write_bytes(recorded("lamp.wav", "m4a"))
    run = "from alm.cli.run_command import run; import sys; sys.exit(run())"
    for words, wanted in (
        (("-", "transcribe"), "turn on the lamp in the kitchen\n"),
        ((path, "transcribe", "--format", "srt"), "00:00:00,000 --> 00:00:02,"),
    ):
        said = subprocess.run(
            [sys.executable, "-c", run, "--engine", demo, "--provider", "cpu", *words],
            input=path.read_bytes(),
            env=os.environ | {"PYTHONPATH": str(ROOT / "runtime")},
            capture_output=True,
            check=True,
        ).stdout.decode()
        assert wanted in said
