"""Layers of audio encoders that are built as Whisper's are: pre-norm, attention, linear pair."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from alm.errors import BadCheckpoint
from wrappers import dialect

_tanh_gelu = partial(F.gelu, approximate="tanh")
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_new": _tanh_gelu,
    "gelu_fast": _tanh_gelu,
    "gelu_pytorch_tanh": _tanh_gelu,
    "quick_gelu": lambda x: x * (1.702 * x).sigmoid(),
    "relu": F.relu,
    "silu": F.silu,
    "swish": F.silu,
}


class Layer(nn.Module):
    """A pre-norm transformer layer.

    Args:
        known: settings under Whisper's names.
        model: whose they are, for messages.
        key_bias: whether keys have a bias, which Whisper's have not.

    Raises:
        BadCheckpoint: an unknown activation, or heads that do not share the width.
    """

    def __init__(self, known: Mapping[str, Any], model: str, *, key_bias: bool = False) -> None:
        super().__init__()
        width, hidden = known["d_model"], known["encoder_ffn_dim"]
        heads = known["encoder_attention_heads"]
        if width % heads:
            raise BadCheckpoint(f"{model}'s d_model {width} is not divisible by its {heads} heads")
        self.self_attn = Attention(width, heads, key_bias=key_bias)
        self.self_attn_layer_norm = nn.LayerNorm(width)
        self.activation = activation(known["activation_function"], model)
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)
        self.final_layer_norm = nn.LayerNorm(width)

    def forward(
        self, x: Tensor, padded: Tensor | None = None, bias: Tensor | None = None
    ) -> Tensor:
        x = x + self.self_attn(self.self_attn_layer_norm(x), padded, bias)
        return x + self.fc2(self.activation(self.fc1(self.final_layer_norm(x))))


class Attention(nn.Module):
    """Every frame attends to every frame, silence not left out, unless `padded` leaves some out."""

    def __init__(self, width: int, heads: int, *, key_bias: bool = False) -> None:
        super().__init__()
        self.heads, self.dialect = heads, dialect.current()
        self.k_proj = nn.Linear(width, width, bias=key_bias)
        self.v_proj = nn.Linear(width, width)
        self.q_proj = nn.Linear(width, width)
        self.out_proj = nn.Linear(width, width)

    def forward(
        self, x: Tensor, padded: Tensor | None = None, bias: Tensor | None = None
    ) -> Tensor:
        """[batch, frames, width] and what `encoder_attend` takes -> [batch, frames, width]."""
        q, k, v = self.q_proj(x), self.k_proj(x), self.v_proj(x)
        return self.out_proj(self.dialect.encoder_attend(q, k, v, self.heads, bias, padded))


def activation(name: str, model: str) -> Callable[[Tensor], Tensor]:
    """The function between a layer's two linear ones; `model` is for the message."""
    if name not in ACTIVATIONS:
        raise BadCheckpoint(
            f"{model}'s activation_function {name!r} is unknown; known are {', '.join(ACTIVATIONS)}"
        )
    return ACTIVATIONS[name]
