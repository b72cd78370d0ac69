"""Kimi-Audios of other sizes than the shared one, against what the authors' code computed.

Heads that share one key, pooling below the last layer, blocks that four does not divide, a tied
table, a vocabulary of another size, three windows of 30 s. tests/data/README.md says how.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

import alm
from alm import lint
from alm.generation.model import Model
from tests.conftest import run_export
from tests.products import some
from tests.wrappers.families import tiny_kimi
from tests.wrappers.families.test_kimi_audio import TARGETS, answered, heard, prompted
from tests.wrappers.families.tiny_kimi import CLIPS, GOLDEN, VARIANTS, clip

CASES = {"decomposed": "odd", "standard": "tied", "ort": "odd"}
SAID: dict[str, Any] = {v: json.loads((GOLDEN / f"{v}.json").read_text()) for v in VARIANTS}
NAMES = list(SAID["odd"])


@dataclass
class Asked:
    model: Model
    said: dict[str, Any]
    truth: Any


# test_kimi_audio.py has whole runs too.
@pytest.fixture(scope="module", params=some([*CASES], "standard"))
def asked(request: pytest.FixtureRequest, tmp_path_factory: Any) -> Asked:
    variant, folder = CASES[request.param], tmp_path_factory.mktemp(request.param)
    words = ("--precision", "fp32", "--dialect", request.param, "--no-simplify")
    made = tiny_kimi.made(folder / "checkpoint", variant)
    run_export("--model", made, *words, "--dynamic-batch", "--out", folder / "out")
    for target, dialect in TARGETS.items():
        if dialect == request.param:
            assert not (found := lint.lint(folder / "out", target)).refused, found.findings
    model = alm.load(folder / "out", "cpu")
    return Asked(model, SAID[variant], np.load(GOLDEN / f"{variant}.npz"))


def far(ours: np.ndarray, wanted: np.ndarray) -> float:
    """The worst error, as a share of the largest value where that is above 1."""
    assert ours.shape == wanted.shape
    return float(np.abs(ours - wanted).max() / max(1.0, np.abs(wanted).max()))


@pytest.mark.parametrize("name", CLIPS)
def test_every_stage_is_that_of_the_authors_code(asked: Asked, name: str) -> None:
    made, codes = heard(asked.model, clip(name)), asked.truth[f"{name}.codes"]
    count = len(codes)
    assert made["audio_embeds_lengths"].tolist() == [count]
    assert made["audio_ids"][0].tolist() == codes.tolist()
    every = 1 if count < 40 else 25
    frames = made["speech"][0, : 4 * count].reshape(count, -1)[::every]
    assert far(frames, asked.truth[f"{name}.continuous"]) < 1e-4
    states = made["voice"].reshape(-1, made["voice"].shape[-1])[: min(count, 375)][::every]
    assert far(states, asked.truth[f"{name}.hidden"]) < 1e-4


@pytest.mark.parametrize("name", NAMES)
def test_every_sequence_is_that_of_the_authors_code(asked: Asked, name: str) -> None:
    said, truth = asked.said[name], asked.truth
    row = prompted(asked.model, said["messages"], clip)
    audio, text, mask = (truth[f"{name}.{k}"] for k in ("audio_ids", "text_ids", "is_continuous"))
    blank = np.int64(np.bincount(text).argmax())
    ids = np.concatenate([piece for piece in row if piece.ndim == 1])
    assert ids.tolist() == np.where(audio != blank, audio, text)[~mask].tolist()
    assert (
        answered(asked.model, row, said["options"], truth[f"{name}.logits_first"])
        == (said["greedy"])
    )
