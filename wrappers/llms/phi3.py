"""Phi-3 and Phi-4-mini: Llama with queries, keys and values in one weight, gate and up in another.

The weights stay as they are published, so an adapter of either merges as it was trained. A config
may turn the first numbers of a head alone, and see back over a window.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from transformers import Phi3Config

from wrappers.layers import decoder_layers
from wrappers.layers.spec import ACTIVATIONS, Spec


class Attention(decoder_layers.Attention):
    """Attention whose queries, keys and values are one product."""

    def make_products(self) -> None:
        self.qkv_proj = nn.Linear(self.spec.hidden, sum(self.sizes), bias=self.spec.qkv_bias)

    def products(self, x: Tensor, rows: Tensor | None) -> tuple[Tensor, ...]:
        return self.unpacked(x, rows)

    def packed(self, x: Tensor) -> Tensor:
        return self.qkv_proj(x)


class MLP(nn.Module):
    """down(up * act(gate)), gate and up one product."""

    def __init__(self, spec: Spec) -> None:
        super().__init__()
        self.act = ACTIVATIONS[spec.activation]
        self.gate_up_proj = nn.Linear(spec.hidden, 2 * spec.intermediate, bias=spec.mlp_bias)
        self.down_proj = nn.Linear(spec.intermediate, spec.hidden, bias=spec.mlp_bias)

    def forward(self, x: Tensor) -> Tensor:
        gate, up = self.gate_up_proj(x).chunk(2, -1)
        return self.down_proj(up * self.act(gate))


def spec(config: Any) -> Spec:
    """The decoder that transformers' Phi3Config describes; its dropouts are for training."""
    window = config.sliding_window or 0
    if window >= config.max_position_embeddings:  # published ones have a window of twice that
        window = 0
    return Spec.of(
        config,
        activation=config.hidden_act,
        partial=True,
        windows=(window,) * config.num_hidden_layers,
        attention=Attention,
        mlp=MLP,
    )


def tiny() -> Spec:
    """The smallest that computes something, for tests: heads of 16, of which 12 are turned."""
    sizes: dict[str, Any] = dict(hidden_size=64, intermediate_size=48, vocab_size=67)
    sizes |= dict(num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2)
    sizes |= dict(max_position_embeddings=64, original_max_position_embeddings=32)
    sizes |= dict(bos_token_id=1, eos_token_id=2, pad_token_id=0)
    rope = dict(rope_type="longrope", rope_theta=10000.0, partial_rotary_factor=0.75)
    rope |= dict(short_factor=[1.0] * 6, long_factor=[1.0, 1.5, 2.0, 2.5, 3.0, 4.0])
    return spec(Phi3Config(**sizes, rope_parameters=rope))
