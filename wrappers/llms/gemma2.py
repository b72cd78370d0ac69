"""Gemma 2: norms on both sides, soft-capped scores and logits, windows in every other layer."""

from __future__ import annotations

from typing import Any

from transformers import Gemma2Config

from wrappers.layers.spec import Spec


def spec(config: Any) -> Spec:
    """The decoder that transformers' Gemma2Config describes."""
    kinds = config.layer_types
    window = config.sliding_window or 0
    return Spec.of(
        config,
        activation=config.hidden_activation,
        qkv_bias=config.attention_bias,
        output_bias=config.attention_bias,
        embedding_scale=config.hidden_size**0.5,
        scaled_audio=True,
        norm_offset=1.0,
        sandwich=True,
        scale=config.query_pre_attn_scalar**-0.5,
        softcap=config.attn_logit_softcapping or 0.0,
        logit_softcap=config.final_logit_softcapping or 0.0,
        windows=tuple(window if kind == "sliding_attention" else 0 for kind in kinds),
    )


def tiny() -> Spec:
    """The smallest that computes something, for tests."""
    sizes: dict[str, Any] = dict(hidden_size=32, intermediate_size=48, vocab_size=67)
    sizes |= dict(num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2)
    sizes |= dict(max_position_embeddings=64, head_dim=8, query_pre_attn_scalar=8, sliding_window=6)
    return spec(Gemma2Config(**sizes))
