"""Olmo 2: norms behind attention and MLP, not before them, and of all of queries and of keys."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from transformers import Olmo2Config

from wrappers.layers import decoder_layers
from wrappers.layers.spec import Spec


class Attention(decoder_layers.Attention):
    """Attention with a root-mean-square norm over the whole width of queries and of keys."""

    def __init__(self, spec: Spec, window: int) -> None:
        super().__init__(spec, window)
        self.q_norm = decoder_layers.Norm(spec.heads * spec.head_dim, spec.eps, 0.0)
        self.k_norm = decoder_layers.Norm(spec.kv_heads * spec.head_dim, spec.eps, 0.0)

    def before_rope(self, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        return self.q_norm(q), self.k_norm(k)


class Layer(decoder_layers.Layer):
    """Attention and MLP take the residual stream as it is; what they give is normed."""

    def __init__(self, spec: Spec, window: int) -> None:
        super().__init__(spec, window)
        del self.input_layernorm
        self.post_feedforward_layernorm = decoder_layers.Norm(spec.hidden, spec.eps, 0.0)

    def to_attention(self, x: Tensor) -> Tensor:
        return x

    def with_attention(self, x: Tensor, y: Tensor) -> Tensor:
        return x + self.post_attention_layernorm(y)

    def with_mlp(self, x: Tensor) -> Tensor:
        return x + self.post_feedforward_layernorm(self.mlp(x))


def spec(config: Any) -> Spec:
    """The decoder that transformers' Olmo2Config describes."""
    return Spec.of(
        config,
        activation=config.hidden_act,
        qkv_bias=config.attention_bias,
        output_bias=config.attention_bias,
        attention=Attention,
        layer=Layer,
    )


def tiny() -> Spec:
    """The smallest that computes something, for tests."""
    sizes: dict[str, Any] = dict(hidden_size=32, intermediate_size=48, vocab_size=67)
    sizes |= dict(num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2)
    sizes |= dict(max_position_embeddings=64)
    return spec(Olmo2Config(**sizes))
