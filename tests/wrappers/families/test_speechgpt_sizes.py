"""SpeechGPTs of other sizes than the shared one, against what the authors' code computed.

Of a HuBERT that norms after its layers and one that norms before them and each clip, a LoRA of odd
rank on three projections, and a LLaMA whose queries share keys. tests/data/README.md says how.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

import alm
from alm import lint
from alm.generation.model import Model
from alm.timings import Stages
from tests.conftest import run_export
from tests.products import some
from tests.wrappers.families import drawn_speechgpt
from tests.wrappers.families.drawn_speechgpt import CLIPS, GOLDEN, VARIANTS, clip
from wrappers import open_checkpoint
from wrappers.checkpoint.weights.hollow import filled
from wrappers.families import speechgpt

SAID: dict[str, Any] = {v: json.loads((GOLDEN / f"{v}.json").read_text()) for v in VARIANTS}
TRUTH: dict[str, Any] = {v: np.load(GOLDEN / f"{v}.npz") for v in VARIANTS}
# By dialect the variant, whether its LoRA is left out, and a target that takes what comes out.
CASES = {
    "decomposed": ("base", "lora", "trt-jetpack6"),
    "standard": ("large", "base", "trt-jetpack7"),
    "ort": ("base", "base", ""),
}


@dataclass
class Asked:
    model: Model
    variant: str
    kind: str


# test_speechgpt_oracle.py has whole runs too.
@pytest.fixture(scope="module", params=some([*CASES], "standard"))
def asked(request: pytest.FixtureRequest, tmp_path_factory: Any) -> Asked:
    (variant, kind, target), folder = CASES[request.param], tmp_path_factory.mktemp(request.param)
    made = drawn_speechgpt.make(folder / "checkpoint", variant)
    if kind == "base":
        without_adapter(made)
    words = ("--precision", "fp32", "--dialect", request.param, "--no-simplify")
    with pytest.MonkeyPatch.context() as patch:  # export tries the longest clip, slow at 60 s
        patch.setattr(speechgpt, "MOST_SAMPLES", 12 * 16000)
        run_export("--model", made, *words, "--dynamic-batch", "--out", folder / "out")
    for name in [target, "trt-rtx"] if target == "trt-jetpack7" else [target] * bool(target):
        verdict = lint.lint(folder / "out", name)
        assert len(verdict.parts) == 3 and not verdict.refused, verdict.findings
    return Asked(alm.load(folder / "out", "cpu"), variant, kind)


def without_adapter(folder: Path) -> None:
    """The config no longer names the LoRA."""
    said = yaml.safe_load((folder / "config.yaml").read_text())
    said["speechgpt"].pop("lora_path", None)
    (folder / "config.yaml").write_text(yaml.safe_dump(said))


@pytest.mark.parametrize("dialect", CASES)
@pytest.mark.parametrize("variant", VARIANTS)
@torch.no_grad()
def test_a_clip_becomes_the_units_of_the_authors_code(
    variant: str, dialect: str, tmp_path: Path
) -> None:
    made = open_checkpoint(drawn_speechgpt.make(tmp_path / "checkpoint", variant))
    tower, nearest = (filled(made.part(name, dialect)) for name in ("hubert", "kmeans"))
    pcm = torch.zeros(len(CLIPS), max(samples for samples, _ in CLIPS.values()))
    for row, name in zip(pcm, CLIPS, strict=True):
        row[: CLIPS[name][0]] = torch.from_numpy(clip(name))
    lengths = torch.tensor([samples for samples, _ in CLIPS.values()])
    speech, counts = tower(pcm, lengths)
    frames = nearest(speech, counts)
    for row, units, count, name in zip(speech, frames, counts.tolist(), CLIPS, strict=True):
        wanted = TRUTH[variant][f"{name}.frames"]
        assert units[:count].tolist() == wanted.tolist()
        features = torch.from_numpy(TRUTH[variant][f"{name}.features"])
        ours = row[:count][:: 1 if count < 60 else 20]
        assert ours.shape == features.shape
        assert float((ours - features).abs().max()) < 1e-4 * max(1.0, float(features.abs().max()))


@pytest.mark.parametrize("name", SAID["base"])
def test_every_sequence_is_that_of_the_authors_code(asked: Asked, name: str) -> None:
    said = SAID[asked.variant][name]
    names = re.findall(r"\{(\w+)\}", said["message"])
    words = re.sub(r" ?\{\w+\}", "<audio>", said["message"])
    parts, clips = asked.model.parts, [clip(name) for name in names]
    units, _ = parts.audio_encoder.encode(clips, Stages()) if clips else ([], None)
    ids = parts.prompter.ids(parts.prompter.build(words, len(clips), verbatim=True), units)
    assert ids == said["input_ids"]
    conversation = asked.model.chat(
        max_new_tokens=32, verbatim=True, do_sample=False, min_new_tokens=0
    )
    answer = conversation.ask(words, *clips)
    assert answer.prompt_tokens == len(ids)
    assert answer.token_ids == said[asked.kind]["greedy"]
