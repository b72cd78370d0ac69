"""Silence and slivers that would only make one more window get no answer of their own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import alm
from alm.generation.model import Model
from tests.runtime.generation.test_model import GREEDY, RATE, WINDOW, core, uncut


@pytest.fixture(scope="module")
def loaded(artifacts: Path) -> Model:
    return alm.load(artifacts, provider="cpu", threads=1)


def noise(samples: int, seed: int) -> np.ndarray:
    """As loud at its end as anywhere."""
    return (0.1 * np.random.default_rng(seed).standard_normal(samples)).astype(np.float32)


def ask(model: Model, pcm: Any, prompt: str = "describe") -> Any:
    return model.generate(pcm, prompt, **GREEDY)


@pytest.mark.parametrize("seconds", [0.01, 1, 4, 9])
def test_a_silent_tail_changes_no_token_and_is_noted(loaded: Model, seconds: float) -> None:
    pcm = noise(WINDOW, 5)
    tail = np.zeros(int(seconds * RATE), np.float32)
    answer = ask(loaded, np.concatenate([pcm, tail]))
    assert answer.windows == 1 and answer.token_ids == ask(loaded, pcm).token_ids
    assert uncut(answer) == [f"{seconds:.3g} s of silence at the end got no answer"]


def test_a_tail_that_is_no_silence_is_answered(loaded: Model) -> None:
    quiet = noise(2 * RATE, 6) * np.float32(0.05)
    answer = ask(loaded, np.concatenate([noise(WINDOW, 5), quiet]))
    assert answer.windows == 2 and uncut(answer) == []


def test_a_window_of_silence_within_a_clip_is_not_answered(loaded: Model) -> None:
    silence = np.zeros(2 * WINDOW, np.float32)
    answer = ask(loaded, np.concatenate([noise(WINDOW, 5), silence, noise(RATE, 6)]))
    assert answer.windows < 4
    assert any(note.endswith("of silence within the clip got no answer") for note in uncut(answer))


@pytest.mark.parametrize("over", [1, 160, 1105, 4800])
def test_a_sliver_of_a_description_is_not_heard_and_that_is_noted(loaded: Model, over: int) -> None:
    pcm = noise(WINDOW + over, 5)
    answer = ask(loaded, pcm)
    assert answer.windows == 1 and answer.token_ids == ask(loaded, pcm[:WINDOW]).token_ids
    (note,) = uncut(answer)
    assert "too short for an answer of their own" in note
    assert ask(loaded, noise(WINDOW + 4801, 5)).windows == 2


def test_bytes_and_open_files_are_answered_as_their_path(loaded: Model, clip: Path) -> None:
    wanted = core(ask(loaded, clip))
    assert core(ask(loaded, clip.read_bytes())) == wanted
    with clip.open("rb") as file:
        assert core(ask(loaded, file)) == wanted
    with clip.open("rb") as file:
        both = loaded.generate([file, clip.read_bytes()], "describe", **GREEDY)
    assert [core(answer) for answer in both] == [wanted, wanted]
