"""The Conformer layer of Phi-4-multimodal, named as in the checkpoints.

No row's convolution sees a later row, and attention all that it is not told to leave out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wrappers import dialect
from wrappers.layers.audio_layers import activation

MODEL = "Phi-4-multimodal"


class FeedForward(nn.Module):
    """down(up * act(gate)) of a norm of x."""

    def __init__(self, known: Mapping[str, Any]) -> None:
        super().__init__()
        width, hidden = known["hidden_size"], known["intermediate_size"]
        self.act = activation(known["activation"], MODEL)
        self.layer_norm = nn.LayerNorm(width)
        self.gate_up_proj = nn.Linear(width, 2 * hidden)
        self.down_proj = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        up, gate = self.gate_up_proj(self.layer_norm(x)).chunk(2, -1)
        return self.down_proj(up * self.act(gate))


class Attention(nn.Module):
    """Every row attends to every row of its piece, under a bias of their distance."""

    def __init__(self, width: int, heads: int, head_dim: int) -> None:
        super().__init__()
        self.heads, self.dialect = heads, dialect.current()
        self.q_proj = nn.Linear(width, heads * head_dim)
        self.k_proj = nn.Linear(width, heads * head_dim)
        self.v_proj = nn.Linear(width, heads * head_dim)
        self.o_proj = nn.Linear(heads * head_dim, width)

    def forward(self, x: Tensor, bias: Tensor, padded: Tensor) -> Tensor:
        """[batch, rows, width], bias [1, heads, rows, rows], what `encoder_padding` gives."""
        q, k, v = self.q_proj(x), self.k_proj(x), self.v_proj(x)
        return self.o_proj(self.dialect.encoder_attend(q, k, v, self.heads, bias, padded))


class GatedLinear(nn.Module):
    """(a + b1) * act(b + b2), a and b one product."""

    def __init__(self, width: int, act: str) -> None:
        super().__init__()
        self.act = activation(act, MODEL)
        self.ext_pw_conv_1d = nn.Conv1d(width, 2 * width, 1)
        self.b1 = nn.Parameter(torch.zeros(1, width, 1))
        self.b2 = nn.Parameter(torch.zeros(1, width, 1))

    def forward(self, x: Tensor) -> Tensor:
        """[batch, width, rows] -> as x."""
        a, b = self.ext_pw_conv_1d(x).chunk(2, 1)
        return (a + self.b1) * self.act(b + self.b2)


class Separable(nn.Module):
    """A convolution of each channel alone, then one over the channels."""

    def __init__(self, width: int, times: int, kernel: int) -> None:
        super().__init__()
        self.dw_conv = nn.Conv1d(width, width * times, kernel, groups=width)
        self.pw_conv = nn.Conv1d(width * times, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.pw_conv(self.dw_conv(x))


class ConvModule(nn.Module):
    """A row and those before it, through a gate and a separable convolution."""

    def __init__(self, known: Mapping[str, Any]) -> None:
        super().__init__()
        width, self.back = known["hidden_size"], known["kernel_size"] - 1
        self.act = activation(known["conv_activation"], MODEL)
        self.layer_norm = nn.LayerNorm(width)
        self.glu = GatedLinear(width, known["conv_glu_type"])
        self.dw_sep_conv_1d = Separable(width, known["depthwise_multiplier"], self.back + 1)
        self.ext_pw_conv_1d = nn.Conv1d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.glu(self.layer_norm(x).transpose(1, 2))
        x = self.act(self.dw_sep_conv_1d(F.pad(x, (self.back, 0))))
        return self.ext_pw_conv_1d(x).transpose(1, 2)


class Layer(nn.Module):
    """A Conformer layer: half a step of feed-forward on both sides of attention and convolution."""

    def __init__(self, known: Mapping[str, Any]) -> None:
        super().__init__()
        width, heads = known["hidden_size"], known["num_attention_heads"]
        self.feed_forward_in = FeedForward(known)
        self.self_attn = Attention(width, heads, known["head_dim"])
        self.conv = ConvModule(known)
        self.feed_forward_out = FeedForward(known)
        self.layer_norm_att = nn.LayerNorm(width)
        self.layer_norm = nn.LayerNorm(width)

    def forward(self, x: Tensor, bias: Tensor, padded: Tensor) -> Tensor:
        x = x + 0.5 * self.feed_forward_in(x)
        x = x + self.self_attn(self.layer_norm_att(x), bias, padded)
        x = x + self.conv(x)
        return self.layer_norm(x + 0.5 * self.feed_forward_out(x))
