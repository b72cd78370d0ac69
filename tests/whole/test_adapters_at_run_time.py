"""LoRA adapters that stay files: one export answers as the checkpoint with each of them merged."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import alm
from alm.errors import AlmError, BadOption, UnknownName
from alm.generation.decoder import Decoder
from alm.generation.model import Model
from tests.conftest import run_export
from tests.whole import adapter_files
from tests.wrappers.families import tiny_hf
from tests.wrappers.families.tiny_hf import noise

RATE = 16_000
WORDS = "What is said?"
GREEDY: dict[str, Any] = dict(max_new_tokens=12, do_sample=False, num_beams=1)
# Of different ranks, scales and targets; the second changes every part that has Linears.
LORAS: Mapping[str, Mapping[str, Any]] = {
    "medical": dict(
        r=3, lora_alpha=9, target_modules=r".*language_model.*\.(q_proj|v_proj|gate_proj)"
    ),
    "street": dict(
        r=5,
        lora_alpha=4,
        use_rslora=True,
        alpha_pattern={"down_proj": 7},
        rank_pattern={"down_proj": 2},
        target_modules=r".*(audio_tower.*(k_proj|fc1)|language_model.*(o_proj|down_proj)|linear)",
    ),
}


@dataclass(frozen=True)
class Exported:
    """A checkpoint's folder, its adapters', and exports of it: with slots, without, and merged."""

    checkpoint: Path
    loras: Mapping[str, Path]
    out: Path

    def model(self, name: str) -> Model:
        return alm.load(self.out / name, "cpu", threads=1)


def export(checkpoint: Path, out: Path, *words: str | Path) -> None:
    run_export("--model", checkpoint, "--out", out, "--precision", "fp32", "--no-simplify", *words)


@pytest.fixture(scope="module", params=["ort", "decomposed", "standard"])
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    root = tmp_path_factory.mktemp(request.param)
    tiny = tiny_hf.qwen2_audio(root / "checkpoint", seconds=4)
    loras = {
        name: adapter_files.save(tiny.truth, root / name, seed, **said)
        for seed, (name, said) in enumerate(LORAS.items())
    }
    words = ["--dialect", request.param, "--dynamic-batch"]
    export(tiny.folder, root / "out" / "base", *words)
    for name, lora in loras.items():
        shutil.copytree(tiny.folder, root / f"merged {name}")
        adapter_files.merge(tiny.truth, lora, root / f"merged {name}")
        tiny = tiny_hf.qwen2_audio(root / "again", seconds=4)  # peft merged in place
        export(root / f"merged {name}", root / "out" / name, *words)
    every = [f"--adapter={name}={lora}" for name, lora in loras.items()]
    export(tiny.folder, root / "out" / "slots", *words, *every)
    return Exported(tiny.folder, loras, root / "out")


@contextmanager
def logits() -> Iterator[list[np.ndarray]]:
    """All that the decoder says meanwhile."""
    seen: list[np.ndarray] = []
    plain = Decoder._run

    def run(self: Decoder, *given: Any) -> np.ndarray:
        seen.append(plain(self, *given))
        return seen[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Decoder, "_run", run)
        yield seen


def said(model: Model, clip: np.ndarray, **options: Any) -> tuple[list[int], list[np.ndarray]]:
    with logits() as seen:
        answer = model.generate(clip, WORDS, **GREEDY, **options)
    return answer.token_ids, seen


def test_each_adapter_answers_as_if_it_were_merged(exported: Exported) -> None:
    slots, clip = exported.model("slots"), noise(2 * RATE)
    answers: list[list[int]] = []
    for name in ("medical", "street", "medical", "", "street", ""):  # back and forth
        ids, got = said(slots, clip, adapter=name)
        wanted, right = said(exported.model(name or "base"), clip)
        assert ids == wanted
        for a, b in zip(got, right, strict=True):
            if name:
                np.testing.assert_allclose(a, b, rtol=0, atol=1e-4)
            else:  # the base, exactly
                np.testing.assert_array_equal(a, b)
        answers.append(ids)
    assert answers[0] != answers[1] != answers[3] != answers[0]
    by_path, _ = said(slots, clip, adapter=str(exported.loras["street"]))
    assert by_path == answers[1]
