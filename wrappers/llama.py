"""Llama 1, 2, 3.x and Vicuna: rotary, grouped-query, SwiGLU."""

from __future__ import annotations

from typing import Any

from wrappers._decoder import Spec

ROLE = "llm"


def spec(config: Any) -> Spec:
    """The decoder that transformers' LlamaConfig describes."""
    return Spec.of(
        config,
        activation=config.hidden_act,
        qkv_bias=config.attention_bias,
        output_bias=config.attention_bias,
        mlp_bias=config.mlp_bias,
    )
