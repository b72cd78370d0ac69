"""Whole runs of families that have none of their own: the tokens of transformers' `generate`."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest

import wrappers
from alm.audio import reader
from alm.errors import BadPrompt
from alm.generation.model import Model
from tests.products import some
from tests.reference import DIGITS, LIBRISPEECH
from tests.whole.originals import GREEDY, ORIGINALS, AudioLlama, Original, Turn
from tests.whole.targets import TARGETS, check_fit, export_for

RECORDINGS = [*LIBRISPEECH, DIGITS[0]]
RATE = 16_000
# audio-llm's parts are Voxtral's, and test_audio_llm.py has them in all dialects.
CASES = some(
    [
        (family, target)
        for family, original in ORIGINALS.items()
        for target in TARGETS
        if original is not AudioLlama or target == "cpu"
    ],
    ("qwen2_audio", "trt-jetpack6"),
    *(("voxtral", "trt-rtx"), ("audio_llm", "cpu")),
)


@pytest.fixture(scope="module", params=CASES, ids="-".join)
def case(request: pytest.FixtureRequest) -> tuple[str, str]:
    """A family and a target."""
    return request.param


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Original]:
    """The family's small checkpoint, made once."""
    folder = tmp_path_factory.mktemp("originals")
    return cache(lambda family: ORIGINALS[family](folder / family))


@pytest.fixture(scope="module")
def original(case: tuple[str, str], originals: Callable[[str], Original]) -> Original:
    return originals(case[0])


@pytest.fixture(scope="module")
def loaded(
    case: tuple[str, str], original: Original, tmp_path_factory: pytest.TempPathFactory
) -> Model:
    """All parts in float32 as the target wants them: each target has a dialect of its own."""
    return export_for(case[1], original.path, tmp_path_factory.mktemp("exported"))


def test_every_family_is_compared_with_its_original() -> None:
    # Their own tests have whole runs for every target, of clips of all lengths and later turns;
    # some have no like in transformers.
    own = {"audioflamingo3", "glmasr", "granite_speech", "moss_transcribe_diarize", "ultravox"}
    own |= {"phi4_multimodal", "qwen2_5_omni", "qwen3_asr", "qwen3_omni_moe", "voxtral_realtime"}
    own |= {"joint_vocab", "qwen_audio", "kimi_audio", "speechgpt"}
    own |= {"salmonn", "qwen3_aligner"}  # test_oracle.py; test_qwen3_aligner.py: no answers
    assert {*wrappers.with_role("family")} == own | {*ORIGINALS}


def heard(model: Model, path: Path) -> np.ndarray:
    """The recording, or as much of it as the model hears at a time."""
    rules = model.manifest.facts.audio
    pcm = reader.read(path, RATE, rules.channel).pcm
    return pcm if rules.long == "joined" else pcm[: rules.window_samples]


def test_one_clip_is_answered_as_the_original_does(original: Original, loaded: Model) -> None:
    clips = [heard(loaded, path) for path in RECORDINGS]
    wanted = [original.answer([Turn(original.words, [clip])]) for clip in clips]
    batch = loaded.generate(clips, original.words, **GREEDY)
    assert [said.token_ids for said in batch] == wanted
    alone = loaded.generate(clips[0], original.words, **GREEDY)
    assert alone.token_ids == wanted[0]


def test_two_clips_and_later_turns_are_answered_as_the_original_does(
    original: Original, loaded: Model
) -> None:
    a, b, c = (heard(loaded, path) for path in RECORDINGS)
    prompt = loaded.manifest.facts.prompt
    turns = [Turn("Which is longer?", [a, c]), Turn("And which now?", [b]), Turn("Sure?", [])]
    if prompt.single or prompt.one_clip:
        with pytest.raises(BadPrompt, match="one clip at a time"):
            loaded.chat().ask("Which is longer?", a, c)
        turns = [Turn("What is said?", [a]), Turn("And what now?", []), Turn("Sure?", [])]
    if prompt.single:
        return
    chat = loaded.chat(**GREEDY)
    for i, turn in enumerate(turns):
        wanted = original.answer(turns[: i + 1])
        said = chat.ask(turn.words, *turn.clips)
        assert said.token_ids == wanted
        turn.answer = said.token_ids


@pytest.mark.parametrize("seconds", [29, 30, 31, 61])
def test_long_clips_are_heard_by_the_familys_own_rule(
    original: Original, loaded: Model, seconds: int
) -> None:
    rules = loaded.manifest.facts.audio
    own = np.concatenate([heard(loaded, path) for path in RECORDINGS])
    pcm = np.resize(own, seconds * RATE)
    said = loaded.generate(pcm, original.words, **GREEDY)
    if rules.long == "joined":
        assert said.windows == 1
        assert said.token_ids == original.answer([Turn(original.words, [pcm])])
        return
    assert said.windows == -(-len(pcm) // rules.window_samples)
    first = loaded.generate(pcm, original.words, truncate=True, **GREEDY)
    cut = pcm[: rules.window_samples]
    assert first.token_ids == original.answer([Turn(original.words, [cut])])


@pytest.mark.parametrize("samples", [1, 321])
def test_the_shortest_clips_are_heard(original: Original, loaded: Model, samples: int) -> None:
    said = loaded.generate(np.full(samples, 0.1, np.float32), original.words, **GREEDY)
    assert said.audio_tokens and said.token_ids


def test_graphs_are_fit_for_their_target(loaded: Model) -> None:
    check_fit(loaded.folder)
