"""Olmo 2: norms after attention and MLP, and of all of q and k together."""

from __future__ import annotations

from typing import Any

from transformers import Olmo2Config

from wrappers.layers import decoder
from wrappers.layers.spec import Spec


class Attention(decoder.Attention):
    def __init__(self, spec, window):
        super().__init__(spec, window)
        self.q_norm = decoder.Norm(spec.heads * spec.head_dim, spec.eps, 0.0)
        self.k_norm = decoder.Norm(spec.kv_heads * spec.head_dim, spec.eps, 0.0)

    def before_rope(self, q, k):
        return self.q_norm(q), self.k_norm(k)


class Layer(decoder.Layer):
    def __init__(self, spec, window):
        super().__init__(spec, window)
        del self.input_layernorm
        self.post_feedforward_layernorm = decoder.Norm(spec.hidden, spec.eps, 0.0)

    def forward(self, x, *context):
        y, key, value = self.self_attn(x, *context)
        x = x + self.post_attention_layernorm(y)
        return x + self.post_feedforward_layernorm(self.mlp(x)), key, value


def spec(config):
    return Spec.of(config, activation=config.hidden_act, attention=Attention, layer=Layer)


def tiny():
    sizes: dict[str, Any] = dict(
        hidden_size=32, intermediate_size=48, vocab_size=67, num_hidden_layers=2
    )
    return spec(Olmo2Config(**sizes, num_attention_heads=4, max_position_embeddings=64))
