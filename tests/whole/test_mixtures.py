"""Whole runs of a family whose LLM is a mixture of experts: tokens of transformers' generate."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer

import alm
from alm import lint
from alm.artifacts import manifest
from alm.audio import reader
from alm.generation.model import Model
from alm.tensorrt import build
from tests.conftest import run_export
from tests.products import LONG
from tests.reference import DIGITS, LIBRISPEECH
from tests.whole.originals import GREEDY, Qwen2Audio, Turn
from tests.wrappers.families import tiny_hf

WINDOW = 12  # seconds
CLIPS = [
    reader.read(path, tiny_hf.RATE, "mean").pcm[: WINDOW * tiny_hf.RATE]
    for path in (*LIBRISPEECH, DIGITS[0])
]
SILENT, SHORT = np.zeros(tiny_hf.RATE, np.float32), np.full(1600, 0.1, np.float32)
FEW: dict[str, Any] = dict(num_experts_per_tok=2, head_dim=12)
LLMS: dict[str, dict[str, Any]] = {
    "qwen3_moe": FEW | dict(moe_intermediate_size=20, num_experts=6, norm_topk_prob=True),
    "mixtral": FEW | dict(num_local_experts=4, sliding_window=40),
    "qwen2_moe": dict(
        num_experts_per_tok=3,
        moe_intermediate_size=32,
        shared_expert_intermediate_size=24,
        num_experts=5,
        mlp_only_layers=[0],
    ),
}
# target -> those whose lint its graphs must pass
TARGETS = {
    "cpu": ("cpu",),
    "trt-jetpack6": ("trt-jetpack6",),
    "trt-rtx": ("trt-rtx", "trt-jetpack7"),
}
CASES = [("qwen3_moe", "cpu"), ("mixtral", "trt-jetpack6"), ("qwen2_moe", "trt-rtx")]
CASES += [("mixtral", "cpu"), ("qwen3_moe", "trt-jetpack6"), ("qwen3_moe", "trt-rtx")] * LONG


class Mixed(Qwen2Audio):
    """A Qwen2-Audio whose LLM is another."""

    def __init__(self, folder: Path, llm: str) -> None:
        self.tiny = tiny_hf.qwen2_audio(folder, WINDOW, model_type=llm, **LLMS[llm])
        self.path, self.tokenizer = folder, Tokenizer.from_file(str(folder / "tokenizer.json"))


@pytest.fixture(scope="module", params=CASES, ids="-".join)
def pair(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Mixed, Path, str]:
    """The original, the folder that was exported of it, and for which target."""
    llm, target = request.param
    folder = tmp_path_factory.mktemp(llm)
    original = Mixed(folder / "model", llm)
    words = ("--precision", "fp32", "--dynamic-batch", "--no-simplify", "--out", folder / target)
    run_export("--model", original.path, "--target", target, *words)
    return original, folder / target, target


@pytest.fixture(scope="module")
def loaded(pair: tuple[Mixed, Path, str]) -> Model:
    return alm.load(pair[1], "cpu")


def test_a_ragged_batch_and_each_clip_alone_are_answered_as_the_original_does(
    pair: tuple[Mixed, Path, str], loaded: Model
) -> None:
    """Experts are picked token by token: what else is in a batch, and its padding, is nothing."""
    clips = [*CLIPS, SILENT, SHORT]
    wanted = [pair[0].answer([Turn("What is said?", [clip])]) for clip in clips]
    assert len({len(clip) for clip in clips}) >= 4
    batch = loaded.generate(clips, "What is said?", **GREEDY)
    assert [said.token_ids for said in batch] == wanted
    alone = [loaded.generate(clip, "What is said?", **GREEDY) for clip in clips]
    assert [said.token_ids for said in alone] == wanted


def test_later_turns_are_answered_as_the_original_does(
    pair: tuple[Mixed, Path, str], loaded: Model
) -> None:
    a, b, c = CLIPS
    turns = [Turn("Which is longer?", [a, c]), Turn("And which now?", [b]), Turn("Sure?", [])]
    chat = loaded.chat(**GREEDY)
    for i, turn in enumerate(turns):
        said = chat.ask(turn.words, *turn.clips)
        assert said.token_ids == pair[0].answer(turns[: i + 1])
        turn.answer = said.token_ids


def test_its_graphs_pass_the_lint_and_tensorrt_rtx_builds_its_own(
    pair: tuple[Mixed, Path, str],
) -> None:
    _, folder, target = pair
    for goal in TARGETS[target]:
        verdict = lint.lint(folder, goal)
        assert not verdict.refused, verdict.findings
    if target == "trt-rtx":
        pytest.importorskip("tensorrt_rtx")
        build.build(folder, build.Settings("tensorrt-rtx"), print, print)
        assert "decoder" in {engine.part for engine in manifest.load(folder).engines}


def test_the_manifest_says_how_many_experts_there_are_and_how_much_a_token_reads(
    pair: tuple[Mixed, Path, str], loaded: Model
) -> None:
    said, decoder = loaded.manifest.facts.dimensions, loaded.manifest.part("decoder")
    assert decoder is not None and said.experts and said.active_experts
    count, active = decoder.measured["weights"], decoder.measured.get("active_weights")
    assert (active is not None and active < count) == (pair[2] == "cpu")
