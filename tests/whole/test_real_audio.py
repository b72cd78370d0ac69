"""Real speech in the formats that people have it in, as the README types it."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import soundfile

from tests.reference import DIGITS, LIBRISPEECH, MORE_DIGITS, MORE_SPEECH
from tests.runtime.cli.commands import answer

RECORDINGS = [*LIBRISPEECH, *DIGITS, *MORE_SPEECH, *MORE_DIGITS]
WINDOW = 4.0  # seconds, of the tiny model


def test_there_are_recordings_at_16_and_at_8_khz() -> None:
    assert {soundfile.info(path).samplerate for path in LIBRISPEECH} == {16000}
    assert {soundfile.info(path).samplerate for path in DIGITS} == {8000}


@pytest.mark.parametrize("path", RECORDINGS, ids=lambda path: path.stem)
def test_a_recording_is_answered(
    artifacts: Path, path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    answered = answer(capsys, "--engine", artifacts, path, "transcribe", "--num-beams", "1")
    seconds = soundfile.info(str(path)).duration
    assert answered["audio_seconds"] == pytest.approx(seconds, abs=1e-3)
    assert answered["windows"] == math.ceil(seconds / WINDOW)
    assert answered["token_ids"]
