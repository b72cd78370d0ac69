"""Real speech in the formats that people have it in, as the README types it."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import soundfile
from commands import answer
from conftest import SHARED

DATA = SHARED / "data"
LIBRISPEECH = sorted(DATA.glob("librispeech/*.flac"))
DIGITS = sorted(DATA.glob("fsdd/recordings/*_0.wav"))[:5]
WINDOW = 4.0  # seconds, of the tiny model


@pytest.mark.skipif(not DATA.is_dir(), reason=f"no recordings at {DATA}")
def test_there_are_recordings_at_16_and_at_8_khz() -> None:
    assert {soundfile.info(path).samplerate for path in LIBRISPEECH} == {16000}
    assert {soundfile.info(path).samplerate for path in DIGITS} == {8000}


@pytest.mark.parametrize("path", [*LIBRISPEECH, *DIGITS], ids=lambda path: path.stem)
def test_a_recording_is_answered(
    artifacts: Path, path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = answer(capsys, "--engine", artifacts, path, "transcribe", "--num-beams", "1")
    seconds = soundfile.info(str(path)).duration
    assert said["audio_seconds"] == pytest.approx(seconds, abs=1e-3)
    assert said["windows"] == math.ceil(seconds / WINDOW)
    assert said["token_ids"]
