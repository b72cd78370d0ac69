"""SmolLM3: Llama in which every fourth layer has no positions (NoPE), some perhaps a window."""

from __future__ import annotations

from typing import Any

from transformers import SmolLM3Config

from wrappers.layers.spec import Spec


def spec(config: Any) -> Spec:
    """The decoder that transformers' SmolLM3Config describes."""
    window = (config.sliding_window or 0) if config.use_sliding_window else 0
    return Spec.of(
        config,
        activation=config.hidden_act,
        qkv_bias=config.attention_bias,
        output_bias=config.attention_bias,
        mlp_bias=config.mlp_bias,
        windows=tuple(window if of == "sliding_attention" else 0 for of in config.layer_types),
        rotated=tuple(bool(turns) for turns in config.no_rope_layers),  # 1 where rope is
    )


def tiny() -> Spec:
    """The smallest that computes something, for tests."""
    sizes: dict[str, Any] = dict(hidden_size=32, intermediate_size=48, vocab_size=67)
    sizes |= dict(num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2)
    sizes |= dict(max_position_embeddings=64, no_rope_layer_interval=2, pad_token_id=0)
    return spec(SmolLM3Config(**sizes))
