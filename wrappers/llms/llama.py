"""Llama 1, 2, 3.x and Vicuna: rotary, grouped-query, SwiGLU."""

from __future__ import annotations

from typing import Any

from transformers import LlamaConfig

from wrappers.layers.spec import Spec


def spec(config: Any) -> Spec:
    """The decoder that transformers' LlamaConfig describes."""
    return Spec.of(
        config,
        activation=config.hidden_act,
        qkv_bias=config.attention_bias,
        output_bias=config.attention_bias,
        mlp_bias=config.mlp_bias,
    )


def tiny() -> Spec:
    """The smallest that computes something, for tests."""
    sizes: dict[str, Any] = dict(hidden_size=32, intermediate_size=48, vocab_size=67)
    sizes |= dict(num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2)
    sizes |= dict(max_position_embeddings=64)
    return spec(LlamaConfig(**sizes))
