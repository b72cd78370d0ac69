"""Qwen2 and Qwen2.5: Llama with biases on q, k and v, and a sliding window in some layers."""

from __future__ import annotations

from typing import Any

from wrappers._decoder import Spec

ROLE = "llm"


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
