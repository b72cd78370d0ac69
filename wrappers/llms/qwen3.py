"""Qwen3: Llama whose queries and keys are normed, head by head, before they are turned."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from transformers import Qwen3Config

from wrappers.layers import decoder_layers
from wrappers.layers.spec import Spec


class Attention(decoder_layers.Attention):
    """Attention with a root-mean-square norm over each head of queries and keys."""

    def __init__(self, spec: Spec, window: int) -> None:
        super().__init__(spec, window)
        self.q_norm = decoder_layers.Norm(spec.head_dim, spec.eps, spec.norm_offset)
        self.k_norm = decoder_layers.Norm(spec.head_dim, spec.eps, spec.norm_offset)

    def before_rope(self, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        q, k = (y.unflatten(-1, (-1, self.spec.head_dim)) for y in (q, k))
        return self.q_norm(q).flatten(2), self.k_norm(k).flatten(2)


def spec(config: Any) -> Spec:
    """The decoder that transformers' Qwen3Config describes."""
    window = config.sliding_window or 0
    return Spec.of(
        config,
        activation=config.hidden_act,
        qkv_bias=config.attention_bias,
        output_bias=config.attention_bias,
        windows=tuple(window if of == "sliding_attention" else 0 for of in config.layer_types),
        attention=Attention,
    )


def tiny() -> Spec:
    """The smallest that computes something, for tests."""
    sizes: dict[str, Any] = dict(hidden_size=32, intermediate_size=48, vocab_size=67)
    sizes |= dict(num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2)
    sizes |= dict(max_position_embeddings=64, head_dim=12)
    return spec(Qwen3Config(**sizes))
