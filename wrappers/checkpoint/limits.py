"""Limits of what a checkpoint's config may say, checked before memory or time is spent on it.

Names are those of transformers' configs, so that one table serves every family. The limits are some
ten times the largest published model's; that the sizes are also those of the weights is checked
against the shapes in the weight files, still before any is read.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from alm.errors import BadCheckpoint

WIDTH, LAYERS, HEADS, EXPERTS = 2**17, 1024, 4096, 2**14
# A key -> the least and the most that a whole number may be.
SIZES: dict[str, tuple[int, int]] = {
    # an LLM
    "vocab_size": (1, 2**22),
    "hidden_size": (1, WIDTH),
    "intermediate_size": (1, 2**20),
    "num_hidden_layers": (1, LAYERS),
    "num_attention_heads": (1, HEADS),
    "num_key_value_heads": (1, HEADS),
    "head_dim": (2, HEADS),
    "max_position_embeddings": (1, 2**27),
    "original_max_position_embeddings": (1, 2**27),
    "sliding_window": (0, 2**31 - 1),
    "max_window_layers": (0, 2**31 - 1),
    # its experts
    "num_experts": (0, EXPERTS),
    "num_local_experts": (0, EXPERTS),
    "num_experts_per_tok": (1, EXPERTS),
    "moe_intermediate_size": (1, 2**20),
    "shared_expert_intermediate_size": (0, 2**20),
    "decoder_sparse_step": (1, LAYERS),
    # a Whisper
    "num_mel_bins": (1, 1024),
    "max_source_positions": (2, 2**16),
    "d_model": (1, WIDTH),
    "encoder_layers": (1, LAYERS),
    "encoder_attention_heads": (1, HEADS),
    "encoder_ffn_dim": (1, 2**20),
    # a Qwen3-ASR
    "n_window": (1, 2**12),
    "n_window_infer": (1, 2**16),
    "downsample_hidden_size": (1, 2**14),
    "output_dim": (1, WIDTH),
    # a Granite Speech, and its Q-Former
    "input_dim": (2, 2048),
    "num_layers": (1, LAYERS),
    "hidden_dim": (1, WIDTH),
    "feedforward_mult": (1, 64),
    "num_heads": (1, HEADS),
    "dim_head": (1, HEADS),
    "context_size": (1, 2**14),
    "max_pos_emb": (1, 2**14),
    "conv_kernel_size": (1, 2**12),
    "conv_expansion_factor": (1, 64),
    "encoder_hidden_size": (1, WIDTH),
    "cross_attention_frequency": (1, LAYERS),
    "window_size": (1, 2**14),
    "downsample_rate": (1, 2**14),
    # a Phi-4-multimodal
    "input_size": (1, 1024),
    "num_blocks": (1, LAYERS),
    "time_reduction": (1, 256),
    "kernel_size": (1, 2**10),
    "depthwise_multiplier": (1, 2**10),
    "ext_pw_out_channel": (1, WIDTH),
    "depthwise_separable_out_channel": (1, WIDTH),
    "nemo_conv_channels": (1, 2**14),
    "bias_max_distance": (1, 2**20),
    # a QWen and its Whisper
    "kv_channels": (2, HEADS),
    "seq_length": (1, 2**27),
    "n_mels": (1, 1024),
    "n_ctx": (2, 2**16),
    "n_state": (1, WIDTH),
    "n_head": (1, HEADS),
    "n_layer": (1, LAYERS),
    # a BEATs
    "input_patch_size": (1, 128),
    "embed_dim": (1, WIDTH),
    "encoder_embed_dim": (1, WIDTH),
    "encoder_ffn_embed_dim": (1, 2**20),
    "conv_pos": (1, 2**14),
    "conv_pos_groups": (1, WIDTH),
    "num_buckets": (4, 2**16),
    "max_distance": (2, 2**27),
}
POSITIVE = (
    *("rms_norm_eps", "layer_norm_eps", "rope_theta", "query_pre_attn_scalar"),
    *("factor", "partial_rotary_factor", "rope_local_base_freq"),
    *("low_freq_factor", "high_freq_factor", "beta_fast", "beta_slow", "attention_factor"),
    *("final_logit_softcapping", "attn_logit_softcapping", "embedding_multiplier"),
    *("residual_multiplier", "attention_multiplier", "logits_scaling"),
    *("layer_norm_epsilon", "rotary_pct", "rotary_emb_base"),
)
MOST = 1e12  # of these
FLAGS = (
    *("tie_word_embeddings", "attention_bias", "mlp_bias", "use_sliding_window"),
    *("norm_topk_prob", "qkv_bias"),
    *("has_lora_adapter", "use_qformer_text_input"),
    *("conv_bias", "layer_norm_first", "deep_norm", "relative_position_embedding", "gru_rel_pos"),
    "bias_symmetric",
    *("use_dynamic_ntk", "use_logn_attn", "no_bias", "use_cache_quantization"),
    *("avg_pool", "add_audio_bos_eos_token"),
)
WORDS = (
    *("model_type", "hidden_act", "hidden_activation", "activation_function", "activation_fn"),
    *("rope_type", "type", "activation", "conv_activation", "conv_glu_type", "nemo_activation"),
)
SECTIONS = (
    *("audio", "audio_config", "encoder_config", "projector_config", "text_config"),
    *("rope_scaling", "rope_parameters"),
    *("full_attention", "sliding_attention"),  # of rope_parameters
)
FACTORS = ("short_factor", "long_factor")
TOKENS = (
    "bos_token_id",
    "eos_token_id",
    "audio_token_id",
    "audio_token_index",
    "timestamp_token_id",
    "audio_start_id",
)


def check(config: Mapping[str, Any], where: str) -> None:
    """Check every known key of a config and of its sections; a null is a key left out.

    Args:
        config: the plain data of a config.json, or a BEATs checkpoint's `cfg`.
        where: the file, for messages.

    Raises:
        BadCheckpoint: naming every key that is of the wrong type or out of its limits.
    """
    wrong = list(_wrong(config, ""))
    if wrong:
        raise BadCheckpoint(f"{where} says {'; '.join(wrong)}")


def _wrong(config: Mapping[str, Any], prefix: str) -> Iterable[str]:
    for name, value in config.items():
        if value is None:
            continue
        if name in SECTIONS:
            if isinstance(value, Mapping):
                yield from _wrong(value, f"{prefix}{name}.")
            else:
                yield f"{prefix}{name} {shown(value)}; it must be a section of its own"
        elif wanted := _wanted(name, value):
            yield f"{prefix}{name} {shown(value)}; it must be {wanted}"


def _wanted(name: str, value: Any) -> str:
    """What the value of this key must be; "" where it is that, or where the key is not known."""
    if name in SIZES:
        least, most = SIZES[name]
        return "" if _whole(value, least, most) else f"a whole number from {least} to {most}"
    if name in POSITIVE:
        return "" if _positive(value) else f"a number above zero, at most {MOST:g}"
    if name in FLAGS:
        return "" if isinstance(value, bool) else "true or false"
    if name in WORDS:
        return "" if isinstance(value, str) else "a word"
    if name in FACTORS:
        good = isinstance(value, list | tuple) and value and all(map(_positive, value))
        return "" if good else f"a list of numbers above zero, at most {MOST:g}"
    if name in TOKENS:
        ids = value if isinstance(value, list) else [value]
        return "" if all(_whole(token, -1, 2**31) for token in ids) else "a token's id"
    return ""


def _whole(value: Any, least: int, most: int) -> bool:
    return type(value) is int and least <= value <= most


def _positive(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value) and 0 < value <= MOST


def shown(value: Any) -> str:
    """The value as a message has it: short, and numbers of a million digits not at all."""
    if isinstance(value, int) and abs(value) >= 10**30:
        return "with more than 30 digits"
    try:
        text = repr(value)
    except (RecursionError, ValueError):
        return f"of type {type(value).__name__}"
    return text if len(text) <= 60 else f"{text[:60]}..."
