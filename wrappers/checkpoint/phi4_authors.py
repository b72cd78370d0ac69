"""Phi-4-multimodal in its authors' own layout, as transformers' conversion would have saved it.

The first upload is for code beside the weights (`model_type: phi4mm`), which is never run. The
speech LoRA lies among the weights, and what it adapts is called `base_layer` there.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import Phi4MultimodalConfig

from alm.errors import BadCheckpoint
from wrappers.checkpoint import limits
from wrappers.checkpoint.plain_files import no_model

MODEL_TYPE = "phi4mm"
LORA = r"\.lora_[AB]\.(speech|vision)\."
AUDIO_TOKEN, ENDS = 200011, [199999, 200020]  # which their code has and their config has not
# Keys that hold nothing of the model, or nothing that is exported here.
IDLE = (
    *("_name_or_path", "architectures", "auto_map", "model_type", "transformers_version"),
    *("_attn_implementation", "vision_lora", "speech_lora", "embd_layer", "audio_processor"),
)
# A key of the encoder's section -> transformers' name of it.
RENAMED = {
    "attention_dim": "hidden_size",
    "attention_heads": "num_attention_heads",
    "linear_units": "intermediate_size",
    "depthwise_seperable_out_channel": "depthwise_separable_out_channel",
}
SAME = (
    *("activation", "chunk_size", "conv_activation", "conv_glu_type", "depthwise_multiplier"),
    *("ext_pw_out_channel", "input_size", "kernel_size", "left_chunk", "num_blocks"),
    *("time_reduction", "dropout_rate"),
)
# What transformers' class is made for, and the authors' could be told otherwise.
FIXED: dict[str, Any] = {
    "input_layer": "nemo_conv",
    "batch_norm": False,
    "bias_in_glu": True,
    "causal": True,
    "cnn_layer_norm": True,
    "ext_pw_kernel_size": 1,
}
BRIDGE = {"compression_rate": 8, "projection_cls": "mlp"} | dict.fromkeys(
    ("use_qformer", "use_conv_downsample"), False
)
HEAD_BIASES = dict.fromkeys(("attention_bias", "mlp_bias", "lm_head_bias"), False)
NAMES = (  # a pattern of the authors' names, and what transformers has in its place
    (r"(feed_forward_(?:in|out))\.net\.0\.linear\.", r"\1.gate_up_proj."),
    (r"(feed_forward_(?:in|out))\.net\.2\.", r"\1.down_proj."),
    (r"self_attn\.linear_([qkv])\.", r"self_attn.\1_proj."),
    (r"self_attn\.linear_out\.", "self_attn.o_proj."),
    (r"audio_projection\.speech\.0\.", "up_proj_for_speech."),
    (r"audio_projection\.speech\.2\.", "down_proj_for_speech."),
    (r"audio_projection\.vision\.0\.", "up_proj_for_vision_speech."),
    (r"audio_projection\.vision\.2\.", "down_proj_for_vision_speech."),
    (r"\.base_layer\.", "."),
)


def is_theirs(plain: Mapping[str, Any]) -> bool:
    """Whether a config.json is in the authors' layout."""
    return plain.get("model_type") == MODEL_TYPE


def config(plain: Mapping[str, Any], file: Path) -> Phi4MultimodalConfig:
    """transformers' config of the same model.

    Raises:
        BadCheckpoint: sections missing, out of their limits, or of another model; all named.
    """
    audio, bridge = _sections(plain, file)
    limits.check(plain, str(file))
    limits.check(audio, f"{file}: audio_processor.config")
    bias = audio.get("relative_attention_bias_args") or {}
    odd = [
        f"{where}{name} {limits.shown(said[name])}, and known is {want!r}"
        for where, said, wanted in (
            ("", plain, HEAD_BIASES),
            ("audio_processor.config.", audio, FIXED),
            ("embd_layer.audio_embd_layer.", bridge, BRIDGE),
            ("relative_attention_bias_args.", bias, {"type": "t5"}),
        )
        for name, want in wanted.items()
        if said.get(name, want) != want
    ]
    if odd:
        raise BadCheckpoint(f"{file} says {'; '.join(odd)}")
    sizes = {name: audio[name] for name in SAME if name in audio}
    sizes |= {ours: audio[theirs] for theirs, ours in RENAMED.items() if theirs in audio}
    sizes["nemo_conv_channels"] = audio["nemo_conv_settings"]["conv_channels"]
    sizes["bias_max_distance"] = bias.get("t5_bias_max_distance", 1000)
    sizes["bias_symmetric"] = bias.get("t5_bias_symmetric", False)
    sizes["downsample_rate"] = bridge.get("downsample_rate", 1)
    sizes["audio_token_id"] = plain.get("special_audio_token_id", AUDIO_TOKEN)
    limits.check(sizes, f"{file}: audio_processor.config")
    words = {name: value for name, value in plain.items() if name not in IDLE}
    if words.get("eos_token_id") == ENDS[0]:  # of a text; an answer ends by <|end|> as well
        words["eos_token_id"] = ENDS
    try:
        return Phi4MultimodalConfig(**words, audio_config=sizes)
    except Exception as error:  # transformers raises what its dataclasses raise
        raise no_model(str(file), error) from error


def _sections(plain: Mapping[str, Any], file: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The settings of the encoder, and of what is behind it."""

    def inner(*path: str) -> dict[str, Any]:
        value: Any = plain
        for name in path:
            value = value.get(name) if isinstance(value, dict) else None
        if not isinstance(value, dict):
            raise BadCheckpoint(f"{file} lacks a section {'.'.join(path)}")
        return value

    audio = inner("audio_processor", "config")
    convs = inner("audio_processor", "config", "nemo_conv_settings")
    if "conv_channels" not in convs:
        raise BadCheckpoint(f"{file} lacks audio_processor.config.nemo_conv_settings.conv_channels")
    bias = audio.get("relative_attention_bias_args")
    if bias is not None and not isinstance(bias, dict):
        raise BadCheckpoint(f"{file} lacks a section relative_attention_bias_args")
    return audio, inner("embd_layer", "audio_embd_layer")


def lora(plain: Mapping[str, Any], file: Path) -> dict[str, Any]:
    """The settings of the speech LoRA under peft's names.

    Raises:
        BadCheckpoint: none, or more than is known.
    """
    said = plain.get("speech_lora")
    names = {"r": "r", "lora_alpha": "lora_alpha", "layer": "target_modules", "dp": ""}
    if not isinstance(said, dict) or sorted(said) != sorted(names):
        raise BadCheckpoint(
            f"{file} says speech_lora: {limits.shown(said)}; known is a section of "
            f"{', '.join(names)}"
        )
    return {peft: said[name] for name, peft in names.items() if peft}


def published(name: str) -> str:
    """A weight's name in the authors' layout -> the one that transformers' conversion gives it."""
    for pattern, ours in NAMES:
        name = re.sub(pattern, ours, name)
    return name
