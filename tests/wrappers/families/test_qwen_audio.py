"""Qwen-Audio as the authors' code computes it, of which tests/data/qwen_audio holds the results.

transformers has no such model, and the authors' code is not part of this project: four folders of
other sizes and settings are made from a seed, and were run through it once.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import alm
from alm import lint
from alm.generation.model import Model
from alm.ports import CACHE_IN, PROMPT
from tests.conftest import run_export
from tests.products import some
from tests.wrappers.families import tiny_qwen_audio
from tests.wrappers.families.tiny_hf import batch
from tests.wrappers.families.tiny_qwen_audio import (
    GOLDEN,
    QUIET,
    RATE,
    VARIANTS,
    asked,
    clip,
    ranks,
    restated,
    said,
)
from wrappers import open_checkpoint
from wrappers.checkpoint.weights.hollow import filled

DIALECTS = ("decomposed", "standard", "ort")


def arrays(variant: str) -> Any:
    return np.load(GOLDEN / f"{variant}.npz")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("qwen_audio")
    return {name: tiny_qwen_audio.make(root / name, **VARIANTS[name]) for name in VARIANTS}


@pytest.fixture(params=VARIANTS)
def variant(request: pytest.FixtureRequest) -> str:
    return request.param


# --- what is heard


def rows(folder: Path, clips: list[np.ndarray], dialect: str = "ort") -> list[Tensor]:
    """Our parts in torch: clips [samples] -> embeddings [n, hidden]."""
    made = open_checkpoint(folder)
    mel, tower, bridge = (
        filled(made.part(name, dialect)) for name in ("mel", "qwen_audio", "projector")
    )
    pcm, lengths = batch(clips)
    with torch.no_grad():
        speech, counts = tower(mel(pcm), lengths)
        together = bridge(speech, counts)
    return [row[:n] for row, n in zip(together, counts.tolist(), strict=True)]


def test_a_clip_alone_is_heard_as_the_authors_code_hears_it(
    folders: dict[str, Path], variant: str
) -> None:
    wanted = arrays(variant)
    for name in [key.removesuffix(".rows") for key in wanted if key.endswith(".rows")]:
        pcm = clip(name)[: 30 * RATE]
        [got] = rows(folders[variant], [pcm])
        assert len(got) == int(wanted[f"{name}.count"])
        kept = got if len(got) < 60 else got[::25]
        assert float((kept - torch.from_numpy(wanted[f"{name}.rows"])).abs().max()) < 1e-4


def test_clips_of_different_lengths_are_heard_together_as_each_alone(
    folders: dict[str, Path],
) -> None:
    clips = [clip("tiny"), clip("s5"), 20 * clip("odd"), np.zeros(20_000, np.float32)]
    for got, pcm in zip(rows(folders["short"], clips), clips, strict=True):
        assert float((got - rows(folders["short"], [pcm])[0]).abs().max()) < 1e-5


@torch.no_grad()
def test_logits_after_a_prompt_are_those_of_the_authors_code(
    folders: dict[str, Path], variant: str
) -> None:
    made, wanted = open_checkpoint(folders[variant]), arrays(variant)
    decoder = filled(made.part("decoder", DIALECTS[list(VARIANTS).index(variant) % 3]))
    table, compared = made.embedding(), 0
    for name, sequence in said(variant).items():
        turn = sequence["turns"][0]
        ids, names = torch.tensor(turn["prompt"], dtype=torch.int64), asked(turn["query"])[1]
        if not len(ids):
            continue
        embeds, whole = table[ids], torch.tensor([len(ids)])
        for start, of in zip((ids == len(ranks()) + 3520).nonzero()[:, 0], names, strict=True):
            [heard] = rows(folders[variant], [clip(of)])
            embeds[start : start + len(heard)] = heard
        ports = [port for name, port in decoder.inputs.items() if name.startswith(CACHE_IN)]
        sizes = {"batch": 1, "past": 0, "capacity": len(ids)}
        cache = [torch.from_numpy(port.empty(sizes)) for port in ports]
        cache += [whole] * (PROMPT in decoder.inputs)
        logits = decoder(embeds[None], torch.tensor([0]), whole, *cache)[0][0, 0]
        error = (logits - torch.from_numpy(wanted[f"{name}.0.logits"])).abs().max()
        assert float(error) < 1e-4, name
        compared += 1
    assert compared >= 8


# --- whole runs


RUNS = list(zip(VARIANTS, (*DIALECTS, "ort"), strict=True))


@pytest.fixture(scope="module", params=some(RUNS, RUNS[0], RUNS[3]))
def pair(
    request: pytest.FixtureRequest, folders: dict[str, Path], tmp_path_factory: Any
) -> tuple[str, dict[str, Model]]:
    """A variant in a dialect: the chat model, with an empty system text, and as a base model."""
    name, dialect = request.param
    folder = tmp_path_factory.mktemp(name)
    words = ("--precision", "fp32", "--dialect", dialect, "--dynamic-batch", "--no-simplify")
    run_export("--model", folders[name], *words, "--out", folder / "chat")
    for kind in ("quiet", "base"):
        shutil.copytree(folder / "chat", folder / kind)
    restated(folder / "quiet", start=QUIET)
    raw = tiny_qwen_audio.make(folder / "raw", "raw", **VARIANTS[name])
    restated(folder / "base", open_checkpoint(raw).facts.to_json())
    return name, {kind: alm.load(folder / kind, "cpu") for kind in ("chat", "quiet", "base")}


def test_every_turn_is_answered_as_the_authors_code_does(
    pair: tuple[str, dict[str, Model]],
) -> None:
    name, models = pair
    for key, sequence in said(name).items():
        kind = "quiet" if sequence.get("system") == "" else sequence["kind"]
        options: dict[str, Any] = dict(verbatim=True, truncate=True, do_sample=False, num_beams=1)
        conversation = models[kind].chat(**options)
        most = 32 if sequence["kind"] == "chat" else 24
        for at, turn in enumerate(sequence["turns"]):
            words, names = asked(turn["query"])
            answer = conversation.ask(words, *map(clip, names), max_new_tokens=most)
            assert answer.prompt_tokens == turn["prompt_tokens"], (key, at)
            greedy = turn["greedy"]
            # Behind the end of a turn the authors' code forces the end of the text.
            ended = greedy[-1] == len(ranks()) and greedy[-2:-1] != [] and len(greedy) > 1
            ended = ended and greedy[-2] in (len(ranks()) + 1, len(ranks()) + 2)
            assert answer.token_ids == (greedy[:-1] if ended else greedy), (key, at)


def test_rows_of_one_batch_are_answered_as_alone(pair: tuple[str, dict[str, Model]]) -> None:
    """Prompts on both sides of a doubling of the trained length, whose frequencies differ."""
    _, models = pair
    clips = [clip("s1"), clip("s5"), clip("odd")]
    greedy: dict[str, Any] = dict(max_new_tokens=16, do_sample=False, num_beams=1)
    together = models["chat"].generate(clips, "what is that sound?", **greedy)
    for answer, pcm in zip(together, clips, strict=True):
        alone = models["chat"].generate(pcm, "what is that sound?", **greedy)
        assert answer.token_ids == alone.token_ids


@pytest.mark.parametrize(
    "target", some(["trt-jetpack6", "trt-jetpack7", "trt-rtx"], "trt-jetpack6")
)
def test_graphs_for_tensorrt_pass_its_lint(
    folders: dict[str, Path], tmp_path: Path, target: str
) -> None:
    out = tmp_path / "out"
    run_export("--model", folders["short"], "--target", target, "--no-simplify", "--out", out)
    verdict = lint.lint(out, target)
    assert not verdict.refused, verdict.findings


@pytest.mark.parametrize("precision", ["int8", "int4"])
def test_what_rounding_costs_is_reported(
    folders: dict[str, Path], tmp_path: Path, precision: str
) -> None:
    words = ("--precision", precision, "--no-simplify", "--out", tmp_path / "out")
    run_export("--model", folders["published"], *words)
    model = alm.load(tmp_path / "out", "cpu")
    measured = {part.name: part.measured for part in model.manifest.parts}
    lost = measured["decoder"]["parity"]
    assert 0 < lost["rms"] <= lost["bound"] and lost["verdict"] == "within bound"
    assert model.generate(clip("s1"), "transcribe", max_new_tokens=4).token_ids
