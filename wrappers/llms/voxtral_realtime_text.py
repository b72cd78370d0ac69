"""Voxtral Realtime's LLM: a Mistral whose MLPs are told how far words follow their sound."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import VoxtralRealtimeTextConfig

from alm.ports import DELAY
from wrappers.layers import decoder_layers
from wrappers.layers.spec import Spec

NARROW = 32  # numbers between the two layers of `Told`, whatever the config
THETA = 10_000.0


class Delay(nn.Module):
    """A number of steps as cosines and sines: float32 [batch] -> [batch, 1, hidden]."""

    frequencies: Tensor

    def __init__(self, hidden: int) -> None:
        super().__init__()
        half = hidden // 2
        powers = torch.arange(half, dtype=torch.float32, device="cpu") / half
        # transformers' order of operations, since a last bit is an angle.
        self.register_buffer("frequencies", torch.exp(-math.log(THETA) * powers), persistent=False)

    def forward(self, delay: Tensor) -> Tensor:
        angles = delay[:, None, None] * self.frequencies
        return torch.cat((angles.cos(), angles.sin()), -1)


class Told(nn.Module):
    """By how much a layer's MLP gets more of each number, for a delay."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.linear1 = nn.Linear(hidden, NARROW, bias=False)
        self.linear2 = nn.Linear(NARROW, hidden, bias=False)

    def forward(self, delay: Tensor) -> Tensor:
        return self.linear2(F.gelu(self.linear1(delay)))


class Layer(decoder_layers.Layer):
    """What goes into the MLP is scaled as the delay says."""

    def __init__(self, spec: Spec, window: int) -> None:
        super().__init__(spec, window)
        self.ada_rms_norm = Told(spec.hidden)

    def with_mlp(self, x: Tensor, condition: Tensor) -> Tensor:  # pyright: ignore
        normed = self.post_attention_layernorm(x) * (1.0 + self.ada_rms_norm(condition))
        return x + self.mlp(normed)


def spec(config: Any) -> Spec:
    """The decoder that transformers' VoxtralRealtimeTextConfig describes."""
    window = config.sliding_window or 0
    return Spec.of(
        config,
        activation=config.hidden_act,
        windows=(window,) * config.num_hidden_layers,
        layer=Layer,
        condition=(DELAY, Delay),
        slides=True,
    )


def tiny() -> Spec:
    """The smallest that computes something, for tests."""
    sizes: dict[str, Any] = dict(hidden_size=32, intermediate_size=48, vocab_size=67)
    sizes |= dict(num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, head_dim=12)
    sizes |= dict(max_position_embeddings=64, sliding_window=6)
    return spec(VoxtralRealtimeTextConfig(**sizes))
