"""Ultravox folders that cannot be followed: one sentence that names everything."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from alm.errors import BadCheckpoint, MissingFile
from tests.wrappers.checkpoint.checkpoints import Copy, refused, without
from tests.wrappers.families.tiny_ultravox import BARE, TEMPLATE, TOWERED, WHOLE, make, said


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("ultravox")
    return {layout: make(folder / layout / "model", layout) for layout in (WHOLE, TOWERED, BARE)}


def copied(made: dict[str, Path], layout: str, folder: Path) -> Copy:
    """A copy of the checkpoint and of the folders beside it."""
    site = shutil.copytree(made[layout].parent, folder / "site")
    return Copy(site / "model" / "config.json", site)


def of_text(copy: Copy, **values: Any) -> None:
    plain = json.loads(copy.config.read_text())
    plain["text_config"] |= values
    copy.config.write_text(json.dumps(plain))


def of_audio(copy: Copy, **values: Any) -> None:
    plain = json.loads(copy.config.read_text())
    plain["audio_config"] |= values
    copy.config.write_text(json.dumps(plain))


def add(name: str) -> Callable[[dict[str, torch.Tensor]], None]:
    return lambda state: state.update({name: torch.ones(3, 2)})


def other_template(copy: Copy) -> None:
    (copy.folder / "chat_template.jinja").write_text(TEMPLATE.replace("[0]['role']", "[0].none.x"))


def no_template(copy: Copy) -> None:
    (copy.folder / "chat_template.jinja").unlink()


Case = tuple[str, tuple[str, ...], Callable[[Copy], Any]]
LORA_A = "audio_tower.base_model.model.layers.0.self_attn.k_proj.lora_A.default.weight"
CASES: dict[str, Case] = {
    "settings of a wrong type or value": (
        TOWERED,
        (
            "stack_factor: 0, which must be a whole number from 1 to 512",
            "projector_act: 5, which must be a word",
            "projector_ln_mid: 'yes', which must be true or false",
            "audio_latency_block_size: 0, which must be a whole number above zero",
            "text_model_id: '', which must be the name of a model",
            "text_model_lora_config: 3, which must be a section",
        ),
        lambda c: said(
            c.folder, stack_factor=0, projector_act=5, projector_ln_mid="yes",
            audio_latency_block_size=0, text_model_id="", text_model_lora_config=3,
        ),
    ),
    "a model of text alone": (
        TOWERED,
        ("llm_only_training: True, which must be false: such a model hears nothing",),
        lambda c: said(c.folder, llm_only_training=True),
    ),
    "keys that nobody knows": (
        TOWERED,
        ("key `adapter_type`", "key `projector_lnmid` (meant is perhaps `projector_ln_mid`)"),
        lambda c: said(c.folder, adapter_type="cformer", projector_lnmid=True),
    ),
    "quantized weights": (
        TOWERED,
        ("quantization_config, and of quantised weights only bitsandbytes' 4-bit",),
        lambda c: said(c.folder, quantization_config={"quant_method": "gptq"}),
    ),
    "more frames in a row than in a window": (
        TOWERED,
        ("stack_factor: 400, and a window has 300 frames",),
        lambda c: (
            said(c.folder, stack_factor=400),
            of_audio(c, max_source_positions=300),
            said(c.folder, "processor_config.json", stack_factor=400, audio_context_size=600),
        ),
    ),
    "blocks that do not share a window": (
        TOWERED,
        ("config.json: blocks of 7 frames do not share a window of 3000",),
        lambda c: said(c.folder, audio_latency_block_size=7),
    ),
    "an unknown activation of the projector": (
        TOWERED,
        ("activation 'mish' is unknown; known are silu, gelu, gelu_pytorch_tanh, relu, swiglu",),
        lambda c: said(c.folder, projector_act="mish"),
    ),
    "a gate of an odd width": (
        TOWERED,
        ("49 numbers have no halves, one to gate the other",),
        lambda c: said(c.folder, hidden_size=49),
    ),
    "another tower": (
        TOWERED,
        ("audio_config says model_type: 'wav2vec2'; known is whisper",),
        lambda c: of_audio(c, model_type="wav2vec2"),
    ),
    "another LLM": (
        WHOLE,
        ("says text_config.model_type:", "glm4_moe", "llama"),
        lambda c: of_text(c, model_type="glm4_moe"),
    ),
    "an LLM of sizes that contradict": (
        WHOLE,
        ("num_attention_heads 4 are no multiple of num_key_value_heads 3",),
        lambda c: of_text(c, num_key_value_heads=3),
    ),
    "another LLM in the folder that is named": (
        TOWERED,
        ("Llama-tiny/config.json says model_type:", "gemma3"),
        lambda c: said(c.folder.parent / "Llama-tiny", model_type="gemma3"),
    ),
    "another spectrogram": (
        TOWERED,
        ("dither 0.1 and not 0", "feature_size 80 and not 20", "padding_side 'left' and not right"),
        lambda c: said(
            c.folder, "preprocessor_config.json", dither=0.1, feature_size=80, padding_side="left"
        ),
    ),
    "another spectrogram in the folder that is named": (
        BARE,
        ("whisper-tiny", "hop_length 200 and not 160"),
        lambda c: said(
            c.folder.parent / "whisper-tiny", "preprocessor_config.json", hop_length=200
        ),
    ),
    "a processor of another model": (
        TOWERED,
        (
            "audio_padding: 'max_length' and not longest",
            "encoder_ds_factor: 4 and not 2 or 320",
            "stack_factor: 4 and not 8",
            "audio_context_size: 1500 and not 3000",
            "audio_placeholder: '<sound>' and not <|audio|>",
        ),
        lambda c: said(
            c.folder, "processor_config.json", audio_padding="max_length", encoder_ds_factor=4,
            stack_factor=4, audio_context_size=1500, audio_placeholder="<sound>",
        ),
    ),
    "no chat template": (TOWERED, ("holds no chat template",), no_template),
    "a template that cannot be rendered": (
        TOWERED,
        ("its chat template cannot be rendered",),
        other_template,
    ),
    "no end of a text": (
        TOWERED,
        ("has a tokenizer whose eos_token is not said",),
        lambda c: (
            said(c.folder, "tokenizer_config.json", eos_token=None),
            (c.folder / "special_tokens_map.json").unlink(missing_ok=True),
        ),
    ),
    "an end that the LLM does not know": (
        TOWERED,
        ("has a tokenizer whose eos_token is 261, which the LLM does not know",),
        lambda c: (
            said(c.folder, "tokenizer_config.json", eos_token="<|audio|>"),
            said(c.folder.parent / "Llama-tiny", vocab_size=261),
            c.weights("../Llama-tiny", cut),
        ),
    ),
    "weights missing from every piece": (
        WHOLE,
        (
            "audio_tower.layers.1.fc2.bias",
            "multi_modal_projector.ln_post.weight",
            "language_model.model.norm.weight",
        ),
        lambda c: c.weights("", without("layers.1.fc2.bias", "ln_post", "model.norm.weight")),
    ),
    "norms of another place": (
        TOWERED,
        ("missing: multi_modal_projector.ln_mid.weight",),
        lambda c: said(c.folder, projector_ln_mid=True),
    ),
    "a weight that no part takes": (
        TOWERED,
        ("multi_modal_projector.ln_mid.weight",),
        lambda c: c.weights("", add("multi_modal_projector.ln_mid.weight")),
    ),
    "a projector of another width": (
        TOWERED,
        ("multi_modal_projector.linear_1.weight is [48, 224] and not [50, 224]",),
        lambda c: said(c.folder, hidden_size=50),
    ),
    "LoRA that the weights do not hold": (
        TOWERED,
        ("says audio_model_lora_config.r: 8, and", "holds no adapter below audio_tower"),
        lambda c: said(c.folder, audio_model_lora_config={"r": 8}),
    ),
    "LoRA that the config does not name": (
        TOWERED,
        ("holds 1 tensors of an adapter below audio_tower", "no audio_model_lora_config.r above"),
        lambda c: c.weights("", add(LORA_A)),
    ),
    "half of a LoRA": (
        TOWERED,
        ("audio_model_lora_config", "use_bdlora"),
        lambda c: (
            c.weights("", add(LORA_A)),
            said(c.folder, audio_model_lora_config={"r": 3, "use_bdlora": {"x": 1}}),
        ),
    ),
    "an adapter where nobody looks": (
        BARE,
        ("whisper-tiny holds a PEFT adapter", "merge_and_unload"),
        lambda c: (c.folder.parent / "whisper-tiny" / "adapter_config.json").write_text("{}"),
    ),
    "a setting of decoding that is not done": (
        TOWERED,
        ("Llama-tiny/generation_config.json asks for penalty_alpha: 0.6",),
        lambda c: said(c.folder.parent / "Llama-tiny", "generation_config.json", penalty_alpha=0.6),
    ),
}  # fmt: skip


def cut(state: dict[str, torch.Tensor]) -> None:
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        state[name] = state[name][:261].clone()


@pytest.mark.parametrize("case", CASES)
def test_a_folder_that_cannot_be_followed_is_one_sentence(
    made: dict[str, Path], tmp_path: Path, case: str
) -> None:
    layout, names, change = CASES[case]
    copy = copied(made, layout, tmp_path)
    change(copy)
    sentence = refused(copy, BadCheckpoint)
    assert all(name in sentence for name in names), sentence


def test_models_that_are_not_here_are_named_with_the_way_to_get_them(
    made: dict[str, Path], tmp_path: Path
) -> None:
    copy = copied(made, BARE, tmp_path)
    for name in ("Llama-tiny", "whisper-tiny"):
        shutil.rmtree(copy.folder.parent / name)
    sentence = refused(copy, MissingFile)
    beside = copy.folder.parent
    for key, name, last in (
        ("text_model_id", "meta-llama/Llama-tiny", "Llama-tiny"),
        ("audio_model_id", "openai/whisper-tiny", "whisper-tiny"),
    ):
        assert f"says {key}: '{name}'" in sentence
        assert f"hf download {name} --local-dir {beside / last}" in sentence
    said(copy.folder, text_model_id="/no/such/folder", audio_model_id="\0")
    sentence = refused(copy, MissingFile)
    assert "'/no/such/folder'" in sentence and "hf download" not in sentence
