"""Mistral: Llama that sees back over a window of the same length in every layer, if at all."""

from __future__ import annotations

from typing import Any

from transformers import MistralConfig

from wrappers.layers.spec import Spec


def spec(config: Any) -> Spec:
    """The decoder that transformers' MistralConfig describes."""
    window = config.sliding_window or 0  # None from v0.2 on
    windows = (window,) * config.num_hidden_layers
    return Spec.of(config, activation=config.hidden_act, windows=windows)


def tiny() -> Spec:
    """The smallest that computes something, for tests."""
    sizes: dict[str, Any] = dict(hidden_size=32, intermediate_size=48, vocab_size=67)
    sizes |= dict(num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2)
    sizes |= dict(max_position_embeddings=64, sliding_window=6)
    return spec(MistralConfig(**sizes))
