"""Granite: Llama with multipliers of what goes in, of each layer's share, of scores and logits."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from transformers import GraniteConfig

from wrappers.layers import decoder_layers
from wrappers.layers.spec import Spec


class Layer(decoder_layers.Layer):
    """What attention and MLP give is scaled before it joins the residual stream."""

    def __init__(self, spec: Spec, window: int) -> None:
        super().__init__(spec, window)
        self.share = float(spec.config.residual_multiplier)

    def with_attention(self, x: Tensor, y: Tensor) -> Tensor:
        return x + y * self.share

    def with_mlp(self, x: Tensor) -> Tensor:
        return x + self.mlp(self.post_attention_layernorm(x)) * self.share


def spec(config: Any) -> Spec:
    """The decoder that transformers' GraniteConfig describes."""
    return Spec.of(
        config,
        activation=config.hidden_act,
        qkv_bias=config.attention_bias,
        output_bias=config.attention_bias,
        mlp_bias=config.mlp_bias,
        input_scale=float(config.embedding_multiplier),
        logit_divisor=float(config.logits_scaling),
        scale=float(config.attention_multiplier),
        layer=Layer,
    )


def tiny() -> Spec:
    """The smallest that computes something, for tests."""
    sizes: dict[str, Any] = dict(hidden_size=32, intermediate_size=48, vocab_size=67)
    sizes |= dict(num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2)
    scales: dict[str, Any] = dict(
        embedding_multiplier=3.0, residual_multiplier=0.4, logits_scaling=2.0
    )
    scales |= dict(attention_multiplier=0.2)
    return spec(GraniteConfig(**sizes, **scales, max_position_embeddings=64))
