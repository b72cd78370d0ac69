"""Folders and adapters of Unsloth: its keys change nothing, its patterns are followed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import peft
import pytest
import torch

from demo.random_checkpoint import make
from tests.wrappers.checkpoint.checkpoints import TINY, Copy
from tests.wrappers.checkpoint.test_nf4 import MATRIX, in_nf4
from tests.wrappers.checkpoint.test_peft_folders import adapted, beside, said, same
from tests.wrappers.families import tiny_hf
from wrappers import open_checkpoint
from wrappers.checkpoint.weights.hollow import weight
from wrappers.checkpoint.weights.tensors import open_folder
from wrappers.families.salmonn import Salmonn

# As in unsloth/Llama-3.2-1B-Instruct-bnb-4bit.
QUANTIZED: dict[str, Any] = dict(
    _load_in_4bit=True,
    _load_in_8bit=False,
    bnb_4bit_compute_dtype="bfloat16",
    bnb_4bit_quant_storage="uint8",
    bnb_4bit_quant_type="nf4",
    bnb_4bit_use_double_quant=True,
    llm_int8_enable_fp32_cpu_offload=False,
    llm_int8_has_fp16_weight=False,
    llm_int8_skip_modules=None,
    llm_int8_threshold=6.0,
    load_in_4bit=True,
    load_in_8bit=False,
    quant_method="bitsandbytes",
)
OWN: dict[str, Any] = dict(
    _name_or_path="unsloth/Llama-3.2-1B-Instruct",
    unsloth_fixed=True,
    unsloth_version="2024.11.9",
    pad_token_id=3,
    torch_dtype="bfloat16",
)
# What get_peft_regex writes for attention and MLPs of the language alone.
LAYERS = "self_attn|attention|attn|mlp|feed_forward|ffn|dense"
MODULES = "q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj"
PATTERN = (
    rf"(?:.*?(?:language|text).*?(?:{LAYERS}).*?(?:{MODULES}).*?)|"
    rf"(?:\bmodel\.layers\.[\d]{{1,}}\.(?:{LAYERS})\.(?:(?:{MODULES})))"
)
MAPPING = dict(
    base_model_class="LlamaForCausalLM",
    parent_library="transformers.models.llama.modeling_llama",
    unsloth_fixed=True,
)


def test_a_folder_in_4_bits_is_read_whatever_unsloth_says_beside(tmp_path: Path) -> None:
    copy = Copy(make(tmp_path / "model", TINY), tmp_path)
    meant = in_nf4(copy, "bfloat16")
    # Dynamic quantization leaves some matrices as they were, and says which.
    skipped = dict(llm_int8_skip_modules=["lm_head", "model.layers.1.mlp"])
    kept = {n: t for n, t in meant.items() if n.startswith("model.layers.1.mlp.")}

    def dynamic(state: dict[str, Any]) -> None:
        for name in [n for n in state if n.startswith("model.layers.1.mlp.")]:
            del state[name]
        state.update(kept)

    copy.weights("llm", dynamic)
    copy.json("llm/config.json", quantization_config=QUANTIZED | skipped, **OWN)
    copy.json("llm/generation_config.json", max_length=131072, pad_token_id=3, do_sample=True)
    made = open_checkpoint(copy.config)
    assert any("quantized by bitsandbytes (11 weights in NF4)" in note for note in made.notes)
    found = Salmonn(copy.config).llm_weights
    assert len(kept) == 3 and MATRIX in meant
    assert all(torch.equal(found[name], tensor) for name, tensor in meant.items())
    assert made.part("decoder", "standard").facts["merge_error"] < 1e-3  # the LoRA of the .pth


def test_an_adapter_of_unsloth_beside_the_llm_of_a_salmonn_is_merged(tmp_path: Path) -> None:
    recipe = type(TINY)(window_seconds=4, speech_width=16, audio_width=0, adapter="")
    copy = Copy(make(tmp_path / "model", recipe), tmp_path)
    llm = copy.folder / "llm"
    plain = open_folder(llm)
    names = [n for n in plain.shapes if n.endswith("_proj.weight")]
    tensors: dict[str, torch.Tensor] = {}
    for name in names:
        rows, columns = plain.shapes[name]
        place = f"base_model.model.{name.removesuffix('.weight')}"
        tensors[f"{place}.lora_A.weight"] = torch.randn(4, columns)
        tensors[f"{place}.lora_B.weight"] = 0.1 * torch.randn(rows, 4)
    torch.save(tensors, llm / "adapter_model.bin")
    config = peft.LoraConfig(r=4, lora_alpha=4, target_modules=PATTERN, task_type="CAUSAL_LM")
    fields: dict[str, Any] = config.to_dict() | dict(peft_type="LORA", auto_mapping=MAPPING)
    fields["base_model_name_or_path"] = "unsloth/llama-3.2-1b-instruct-bnb-4bit"
    fields |= dict(inference_mode=True, target_modules=PATTERN)
    (llm / "adapter_config.json").write_text(json.dumps(fields, default=sorted))
    copy.settings(lora=False)
    made = open_checkpoint(copy.config)
    decoder = made.part("decoder", "standard")
    assert decoder.facts["merge_error"] < 1e-3 and made.facts.source["adapter"] == "LoRA"
    of = Salmonn(copy.config)
    name = "model.layers.1.mlp.up_proj"
    a, b = (tensors[f"base_model.model.{name}.lora_{x}.weight"] for x in "AB")
    assert of.adapter and {site.name for site in of.adapter.sites} == {
        name.removesuffix(".weight") for name in names
    }
    wanted = plain[f"{name}.weight"] + b @ a
    torch.testing.assert_close(weight(decoder, f"{name}.weight"), wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("saved", [None, ["embed_tokens", "lm_head"]])
def test_an_adapter_of_unsloth_on_a_model_that_hears_is_merged(
    tmp_path: Path, saved: list[str] | None
) -> None:
    tiny = tiny_hf.qwen2_audio(tmp_path / "model", 2)
    config = peft.LoraConfig(r=4, lora_alpha=16, target_modules=PATTERN, modules_to_save=saved)
    alone, tuned = adapted(tiny, tmp_path / "adapter", config)
    said(alone, auto_mapping=MAPPING, unsloth_version="")
    same(open_checkpoint(beside(alone, tiny, tmp_path / "together")), tuned)
