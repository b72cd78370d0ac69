"""Long clips cut in pauses: the same words, at their times, streamed as they are joined."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

import alm
from alm.errors import BadOption
from alm.generation.model import Model
from demo.clips import FOLDER

RATE = 16_000
LAMP = "turn on the lamp in the kitchen"


@pytest.fixture(scope="module")
def model(demo: Path) -> Model:
    return alm.load(demo, provider="cpu")


def lamps(gap: float, count: int, noise: float = 0.0) -> np.ndarray:
    """The sentence again and again, so many seconds of silence between, noise over it."""
    one = soundfile.read(FOLDER / "lamp.wav", dtype="float32")[0]
    pcm = np.concatenate([np.concatenate([one, np.zeros(int(gap * RATE), np.float32)])] * count)
    hiss = np.random.default_rng(0).standard_normal(len(pcm)) * noise
    return (pcm + hiss).astype(np.float32)


def test_a_sentence_is_not_cut_in_two_and_keeps_its_time(model: Model) -> None:
    pcm = lamps(6.9, 3)  # the second begins at 8.9 s, and windows are 10 s long
    answer = model.generate(pcm, "transcribe", joins="quiet")
    assert answer.text == " ".join([LAMP] * 3)
    for number, segment in enumerate(answer.segments):
        assert segment.text == LAMP
        assert segment.start <= 8.9075 * number + 0.25 and segment.end >= 8.9075 * number + 1.6
    assert "".join(model.stream(pcm, "transcribe", joins="quiet")) == answer.text


def test_windows_that_overlap_are_one_text_that_is_streamed_whole(model: Model) -> None:
    pcm = lamps(0.0, 8, noise=0.05)  # no pause of 12 dB
    answer = model.generate(pcm, "transcribe", joins="quiet")
    assert answer.windows == 2 and {segment.start for segment in answer.segments} <= {0.0, 10.0}
    assert "".join(model.stream(pcm, "transcribe", joins="quiet")) == answer.text
    assert " ".join(segment.text for segment in answer.segments) == answer.text


def test_other_prompts_and_short_clips_are_as_ever(model: Model) -> None:
    pcm = lamps(6.9, 2)
    for prompt, sound in (("describe", pcm), ("transcribe", lamps(0, 1))):
        wanted = model.generate(sound, prompt)
        assert model.generate(sound, prompt, joins="quiet").token_ids == wanted.token_ids


def test_no_other_way_is_taken(model: Model) -> None:
    with pytest.raises(BadOption, match="joins is exact or quiet, not 'loud'"):
        model.generate(lamps(0, 1), "transcribe", joins="loud")  # pyright: ignore
