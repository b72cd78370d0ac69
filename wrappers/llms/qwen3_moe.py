"""Qwen3 MoE: Qwen3 with experts in the place of the MLP, in all layers but those that say not."""

from __future__ import annotations

from typing import Any

from transformers import Qwen3MoeConfig

from wrappers.layers.spec import Spec
from wrappers.llms import qwen2_moe, qwen3


def spec(config: Any) -> Spec:
    """The decoder that transformers' Qwen3MoeConfig describes.

    Raises:
        BadCheckpoint: more experts for a token than there are, or layers that are not there.
    """
    window = config.sliding_window or 0
    return Spec.of(
        config,
        activation=config.hidden_act,
        qkv_bias=config.attention_bias,
        output_bias=config.attention_bias,
        windows=(window,) * config.num_hidden_layers,
        attention=qwen3.Attention,
        **qwen2_moe.experts_of(config, shared=0),
    )


def tiny() -> Spec:
    """The smallest that computes something, for tests."""
    sizes: dict[str, Any] = dict(hidden_size=32, intermediate_size=48, vocab_size=67)
    sizes |= dict(num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2)
    sizes |= dict(max_position_embeddings=64, head_dim=12, moe_intermediate_size=32)
    return spec(Qwen3MoeConfig(**sizes, num_experts=5, num_experts_per_tok=2, norm_topk_prob=True))
