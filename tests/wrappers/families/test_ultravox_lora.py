"""LoRA in an Ultravox's own weights, as training leaves it, and PEFT adapters of the whole."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file

import alm
from alm.errors import BadCheckpoint
from tests.conftest import run_export
from tests.products import some
from tests.wrappers.checkpoint.checkpoints import in_peft
from tests.wrappers.families.test_ultravox import hearer
from tests.wrappers.families.tiny_hf import noise
from tests.wrappers.families.tiny_qwen3_asr import alike
from tests.wrappers.families.tiny_ultravox import BARE, GREEDY, RATE, TOWERED, Original, make, said
from wrappers import open_checkpoint

TUNED: dict[str, dict[str, Any]] = {
    "audio_model_lora_config": dict(r=3),  # its other settings are the original's
    "text_model_lora_config": dict(r=2, lora_alpha=5, target_modules=["q_proj", "down_proj"]),
}
USUAL: dict[str, Any] = dict(
    lora_alpha=8, target_modules=["k_proj", "q_proj", "linear_k", "linear_q"]
)


def trained(folder: Path) -> Original:
    """Write the LoRA of both models into the folder; the original with it beside its weights."""
    original = Original(folder)
    torch.manual_seed(2)
    state = load_file(folder / "model.safetensors")
    for key, name, prefix in (
        ("audio_model_lora_config", "tower", "audio_tower."),
        ("text_model_lora_config", "llm", "language_model."),
    ):
        tuned = in_peft(getattr(original, name), peft.LoraConfig(**USUAL | TUNED[key]))
        for module, weight in tuned.named_parameters():
            if "lora_" in module:
                weight.data.normal_(0, 0.3)
                state[prefix + module] = weight.data.clone()
        setattr(original, name, tuned.base_model.model if name == "tower" else tuned)
    save_file(state, folder / "model.safetensors")
    said(folder, "config.json", **TUNED)
    return original


def test_a_checkpoint_of_training_is_merged(tmp_path: Path) -> None:
    folder = make(tmp_path / "model", BARE)
    clip = noise(3 * RATE)
    plain = Original(folder)
    before = plain.heard(clip), plain.answer(("What is said?", [clip], []))
    original = trained(folder)
    wanted = original.heard(clip)
    alike(hearer(folder)([clip])[0], wanted)
    assert float((wanted - before[0]).abs().max()) > 0.1
    run_export("--model", folder, "--no-simplify", "--precision", "fp32", "--out", tmp_path / "out")
    model = alm.load(tmp_path / "out", "cpu")
    got = model.generate(clip, "What is said?", **GREEDY)
    assert got.token_ids == original.answer(("What is said?", [clip], [])) != before[1]
    made = open_checkpoint(folder)
    assert made.facts.source["adapter"] == "LoRA, LoRA"
    assert [note.partition(" is merged")[2] for note in made.notes] == [
        " (audio_tower)",
        " (language_model)",
    ]


def adapter(folder: Path, place: Path, modules: str) -> Any:
    """A PEFT adapter of the whole model in `place`; the tuned LLM."""
    tuned = in_peft(
        Original(folder).llm, peft.LoraConfig(r=2, lora_alpha=6, target_modules=modules)
    )
    torch.manual_seed(3)
    state = {}
    for name, weight in tuned.named_parameters():
        if "lora_" in name:
            weight.data.normal_(0, 0.3)
            plain = name.removeprefix("base_model.model.").replace(".default", "")
            state[f"base_model.model.language_model.{plain}"] = weight.data.clone()
    place.mkdir(exist_ok=True)
    save_file(state, place / "adapter_model.safetensors")
    config = tuned.peft_config["default"].to_dict()
    config |= {"base_model_name_or_path": str(folder), "peft_type": "LORA"}
    config["target_modules"] = r".*language_model.*q_proj"
    (place / "adapter_config.json").write_text(json.dumps(config, default=str))
    return tuned


@pytest.mark.parametrize("alone", some([True, False], True))
def test_a_peft_adapter_of_the_whole_is_merged(tmp_path: Path, alone: bool) -> None:
    folder = make(tmp_path / "model", TOWERED)
    place = tmp_path / "adapter" if alone else folder
    original, clip = Original(folder), noise(RATE)
    original.llm = adapter(folder, place, r".*q_proj")
    run_export("--model", place, "--no-simplify", "--precision", "fp32", "--out", tmp_path / "out")
    got = alm.load(tmp_path / "out", "cpu").generate(clip, "respond", **GREEDY)
    assert got.token_ids == original.answer(("<|audio|>", [clip], []))
    with original.llm.disable_adapter():
        assert got.token_ids != original.answer(("<|audio|>", [clip], []))


def test_two_adapters_are_refused(tmp_path: Path) -> None:
    folder = make(tmp_path / "model", BARE)
    trained(folder)
    adapter(folder, folder, r".*q_proj")
    with pytest.raises(BadCheckpoint, match="holds LoRA of its own, and .* another adapter"):
        open_checkpoint(folder)
