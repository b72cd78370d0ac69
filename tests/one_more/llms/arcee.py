"""Arcee: Llama whose MLP has no gate, and squares what is above zero."""

from __future__ import annotations

from typing import Any

from torch import nn
from transformers import ArceeConfig

from alm.errors import BadCheckpoint
from wrappers.layers.spec import Spec


class MLP(nn.Module):
    def __init__(self, spec):
        super().__init__()
        self.up_proj = nn.Linear(spec.hidden, spec.intermediate, bias=spec.mlp_bias)
        self.down_proj = nn.Linear(spec.intermediate, spec.hidden, bias=spec.mlp_bias)

    def forward(self, x):
        return self.down_proj(nn.functional.relu(self.up_proj(x)).square())


def spec(config):
    if config.hidden_act != "relu2":
        raise BadCheckpoint(f"hidden_act {config.hidden_act!r} is not known here; there is: relu2")
    biases = dict(qkv_bias=config.attention_bias, output_bias=config.attention_bias)
    return Spec.of(config, mlp_bias=config.mlp_bias, mlp=MLP, **biases)


def tiny():
    sizes: dict[str, Any] = dict(
        hidden_size=32, intermediate_size=48, vocab_size=67, num_hidden_layers=2
    )
    return spec(ArceeConfig(**sizes, num_attention_heads=4, max_position_embeddings=64))
