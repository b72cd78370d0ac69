"""Whole runs of every family: the tokens that transformers' own `generate` gives."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest

import alm
import wrappers
from alm import lint
from alm.artifacts import manifest
from alm.audio import reader
from alm.errors import BadPrompt
from alm.generation.model import Model
from alm.tensorrt import build
from tests.conftest import run_export
from tests.reference import DIGITS, LIBRISPEECH
from tests.whole.originals import GREEDY, ORIGINALS, AudioLlama, Original, Turn

RECORDINGS = [*LIBRISPEECH, DIGITS[0]]
RATE = 16_000
# target -> those whose lint its graphs must pass
TARGETS = {"cpu": (), "trt-jetpack6": ("trt-jetpack6",), "trt-rtx": ("trt-rtx", "trt-jetpack7")}


# Those whose own tests have whole runs in every dialect, of clips of all lengths and later turns:
# what is left of them here is what each target adds.
OWN = {"audioflamingo3", "glmasr", "granite_speech", "moss_transcribe_diarize", "phi4_multimodal"}
OWN |= {"qwen2_5_omni", "qwen3_asr", "ultravox", "voxtral_realtime"}
# audio-llm's parts are Voxtral's, and test_audio_llm.py has them in all dialects.
CASES = [
    (family, target)
    for family, original in ORIGINALS.items()
    for target in TARGETS
    if (original is not AudioLlama or target == "cpu") and (family not in OWN or target != "cpu")
]
WHOLE = [case for case in CASES if case[0] not in OWN]
of_whole_runs = pytest.mark.parametrize("case", WHOLE, ids="-".join, indirect=True, scope="module")


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
def exported(
    case: tuple[str, str], original: Original, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """All parts in float32 as the target wants them: each target has a dialect of its own."""
    target = case[1]
    out = tmp_path_factory.mktemp("exported") / target
    words = ("--precision", "fp32", "--dynamic-batch", "--no-simplify", "--out", out)
    run_export("--model", original.path, "--target", target, *words)
    return out


@pytest.fixture(scope="module")
def loaded(exported: Path) -> Model:
    return alm.load(exported, "cpu")


def test_every_family_is_compared_with_its_original() -> None:
    apart = {"salmonn", "qwen3_aligner"}  # test_oracle.py; test_qwen3_aligner.py: no answers
    apart |= {"qwen_audio", "kimi_audio"}  # their test_*.py: transformers has no such models
    apart |= {"speechgpt"}  # test_speechgpt.py: the same, and its conversations are one turn
    assert {*wrappers.with_role("family")} == apart | {*ORIGINALS}


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


@of_whole_runs
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


@of_whole_runs
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


@of_whole_runs
@pytest.mark.parametrize("samples", [1, 321])
def test_the_shortest_clips_are_heard(original: Original, loaded: Model, samples: int) -> None:
    said = loaded.generate(np.full(samples, 0.1, np.float32), original.words, **GREEDY)
    assert said.audio_tokens and said.token_ids


def test_graphs_pass_the_lint_and_tensorrt_rtx_builds_its_own(exported: Path) -> None:
    goals = TARGETS[exported.name]
    for target in goals:
        verdict = lint.lint(exported, target)
        assert not verdict.refused, verdict.findings
    if "trt-rtx" in goals:
        pytest.importorskip("tensorrt_rtx")
        build.build(exported, build.Settings("tensorrt-rtx"), print, print)
        said = manifest.load(exported)
        assert {engine.part for engine in said.engines} == {p.name for p in said.parts} - {"embed"}
