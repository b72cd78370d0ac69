"""Gemma 2: norms on both sides, soft-capped scores and logits, windows in every other layer."""

from __future__ import annotations

from typing import Any

from wrappers._decoder import Spec

ROLE = "llm"


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
        norm_offset=1.0,
        sandwich=True,
        scale=config.query_pre_attn_scalar**-0.5,
        softcap=config.attn_logit_softcapping or 0.0,
        logit_softcap=config.final_logit_softcapping or 0.0,
        windows=tuple(window if kind == "sliding_attention" else 0 for kind in kinds),
    )
