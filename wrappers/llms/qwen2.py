"""Qwen2 and Qwen2.5: Llama with biases on q, k and v, and a sliding window in some layers."""

from __future__ import annotations

from typing import Any

from transformers import Qwen2Config

from wrappers.layers.spec import Spec


def spec(config: Any) -> Spec:
    """The decoder that transformers' Qwen2Config describes."""
    kinds = config.layer_types
    window = config.sliding_window or 0
    return Spec.of(
        config,
        activation=config.hidden_act,
        qkv_bias=True,
        windows=tuple(window if kind == "sliding_attention" else 0 for kind in kinds),
    )


def tiny() -> Spec:
    """The smallest that computes something, for tests."""
    sizes: dict[str, Any] = dict(hidden_size=32, intermediate_size=48, vocab_size=67)
    sizes |= dict(num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2)
    sizes |= dict(max_position_embeddings=64)
    return spec(Qwen2Config(**sizes))
