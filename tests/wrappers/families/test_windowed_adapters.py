"""LoRA of families that hear in windows, alone in a folder: peft's own answers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import pytest
import torch

import alm
from tests.conftest import run_export
from tests.products import some
from tests.wrappers.checkpoint.checkpoints import in_peft
from tests.wrappers.families import tiny_moss, tiny_windowed
from tests.wrappers.families.tiny_hf import noise
from tests.wrappers.families.tiny_windowed import GREEDY, RATE, Tiny

MODULES = r".*language_model.*(q_proj|down_proj)|.*multi_modal_projector\.linear_1"


@pytest.mark.parametrize(
    "make",
    some([tiny_windowed.glmasr, tiny_windowed.audioflamingo3, tiny_moss.make], tiny_moss.make),
)
def test_an_adapter_of_the_model_is_merged(make: Callable[[Path], Tiny], tmp_path: Path) -> None:
    tiny = make(tmp_path / "model")
    torch.manual_seed(1)
    tuned: Any = in_peft(tiny.truth, peft.LoraConfig(r=3, lora_alpha=9, target_modules=MODULES))
    for name, weight in tuned.named_parameters():
        if "lora_" in name:
            weight.data.normal_(0, 0.3)
    tuned.save_pretrained(tmp_path / "adapter")
    file = tmp_path / "adapter" / "adapter_config.json"
    said = json.loads(file.read_text()) | {"base_model_name_or_path": str(tiny.folder)}
    file.write_text(json.dumps(said))
    words = ("--precision", "fp32", "--no-simplify", "--out", tmp_path / "out")
    run_export("--model", tmp_path / "adapter", *words)
    clip = noise(3 * RATE)
    got = alm.load(tmp_path / "out", "cpu").generate(clip, "What is said?", **GREEDY)
    wanted = Tiny(tiny.folder, tuned).answer(("What is said?", [clip], []))
    with tuned.disable_adapter():
        plain = Tiny(tiny.folder, tuned).answer(("What is said?", [clip], []))
    assert got.token_ids == wanted != plain
