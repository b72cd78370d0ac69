"""Layers of HuBERT, wav2vec 2.0 and WavLM: convolutions over samples, then a transformer.

WavLM's attention has a bias of relative positions, of which a table is read before its first layer
and which every layer gates by its input (arXiv 2110.13900, section 3.1).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from alm.errors import BadCheckpoint
from wrappers import dialect
from wrappers.layers.audio_layers import Attention, activation
from wrappers.layers.beats_layers import RelativeBias, gate

EPS = 1e-5  # of the norms of convolutions, whatever layer_norm_eps says


class ClipNorm(nn.Module):
    """Each channel with mean 0 and variance 1 over a row's own frames, then scaled."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(width)), nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor, real: Tensor) -> Tensor:
        """[batch, width, frames], 1 or 0 [batch, 1, frames] -> as x."""
        return over_own(x, real, EPS) * self.weight[:, None] + self.bias[:, None]


class ConvLayer(nn.Module):
    """A convolution, a norm of the clip's channels or of each frame if any, and an activation."""

    def __init__(self, known: Mapping[str, Any], index: int) -> None:
        super().__init__()
        width = known["conv_dim"][index]
        before = known["conv_dim"][index - 1] if index else 1
        self.kernel, self.stride = known["conv_kernel"][index], known["conv_stride"][index]
        self.act = activation(known["feat_extract_activation"], "HuBERT")
        self.conv = nn.Conv1d(before, width, self.kernel, self.stride, bias=known["conv_bias"])
        self.grouped, self.first = known["feat_extract_norm"] == "group", index == 0
        if not self.grouped:
            self.layer_norm: nn.Module = nn.LayerNorm(width, EPS)
        elif self.first:
            self.layer_norm = ClipNorm(width)

    def forward(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """[batch, width, frames], [batch] -> the same, fewer of them."""
        x = self.conv(x)
        lengths = (lengths - self.kernel + self.stride).clamp(min=0) // self.stride
        if not self.grouped:
            x = self.layer_norm(x.transpose(1, 2)).transpose(1, 2)
        elif self.first:  # over a row's own frames, of which those behind its end are none
            real = torch.arange(x.shape[2]) < lengths[:, None, None]
            x = self.layer_norm(x, real.to(x.dtype))
        return self.act(x), lengths


class Convolutions(nn.Module):
    """Samples -> a vector for every 20 ms."""

    def __init__(self, known: Mapping[str, Any]) -> None:
        super().__init__()
        count = len(known["conv_dim"])
        self.conv_layers = nn.ModuleList(ConvLayer(known, i) for i in range(count))

    def forward(self, pcm: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """[batch, samples], [batch] -> [batch, frames, width], [batch]."""
        x = pcm[:, None]
        for layer in self.conv_layers:
            x, lengths = layer(x, lengths)
        return x.transpose(1, 2), lengths


class Encoder(nn.Module):
    """Positions by convolution, then the first so many layers, of `most` frames at most."""

    def __init__(self, known: Mapping[str, Any], layers: int, most: int) -> None:
        super().__init__()
        width, taps = known["hidden_size"], known["num_conv_pos_embeddings"]
        groups = known["num_conv_pos_embedding_groups"]
        if width % groups:
            raise BadCheckpoint(
                f"HuBERT's hidden_size {width} is not divisible by its {groups} "
                "num_conv_pos_embedding_groups"
            )
        self.stable, self.dialect = known["do_stable_layer_norm"], dialect.current()
        self.act = activation(known["feat_extract_activation"], "HuBERT")
        self.pos_conv_embed: Any = nn.Module()
        self.pos_conv_embed.conv = nn.Conv1d(width, width, taps, padding=taps // 2, groups=groups)
        if not self.stable:
            self.layer_norm = nn.LayerNorm(width, known["layer_norm_eps"])
        self.layers = nn.ModuleList(Layer(known) for _ in range(layers))
        if known["relative"] and layers > 0:
            heads, furthest = known["num_attention_heads"], known["max_bucket_distance"]
            first: Any = self.layers[0]
            first.attention.rel_attn_embed = RelativeBias(
                known["num_buckets"], heads, furthest, most, piece=1
            )

    def forward(self, x: Tensor, real: Tensor) -> Tensor:
        """[batch, frames, width], 1 or 0 [batch, frames] -> [batch, frames, width]."""
        inside = real.unsqueeze(2)
        x = x * inside  # the convolution sees zeros behind a row's end, as it does alone
        near = self.pos_conv_embed.conv(x.transpose(1, 2))[:, :, : x.shape[1]]  # an even kernel
        x = x + self.act(near).transpose(1, 2)
        x = x if self.stable else self.layer_norm(x)
        padded = self.dialect.encoder_padding(real)
        bias = None
        for layer in self.layers:  # the first makes the bias, since its weights hold the table
            x, bias = layer(x, padded, bias)
        return x * inside


class GatedAttention(Attention):
    """Attention under a bias that each frame gates by itself, before it is made into a query."""

    def __init__(self, width: int, heads: int, *, key_bias: bool = False) -> None:
        super().__init__(width, heads, key_bias=key_bias)
        self.gru_rel_pos_linear = nn.Linear(width // heads, 2)
        self.gru_rel_pos_const = nn.Parameter(torch.ones(1, heads, 1, 1))

    def forward(
        self, x: Tensor, padded: Tensor | None = None, bias: Tensor | None = None
    ) -> Tensor:
        """[batch, frames, width], bias [1, heads, frames, frames] -> [batch, frames, width]."""
        if bias is not None:
            wanted = gate(x, self.heads, self.gru_rel_pos_linear, self.gru_rel_pos_const)
            bias = wanted * bias
        return super().forward(x, padded, bias)


class Layer(nn.Module):
    """A transformer layer, normed behind its halves, or before them where it is stable."""

    def __init__(self, known: Mapping[str, Any]) -> None:
        super().__init__()
        width, heads = known["hidden_size"], known["num_attention_heads"]
        if width % heads:
            raise BadCheckpoint(f"HuBERT's hidden_size {width} is not divisible by {heads} heads")
        self.stable = known["do_stable_layer_norm"]
        self.act = activation(known["hidden_act"], "HuBERT")
        gated = GatedAttention if known["relative"] else Attention
        self.attention = gated(width, heads, key_bias=True)
        self.layer_norm = nn.LayerNorm(width, known["layer_norm_eps"])
        self.feed_forward: Any = nn.Module()
        self.feed_forward.intermediate_dense = nn.Linear(width, known["intermediate_size"])
        self.feed_forward.output_dense = nn.Linear(known["intermediate_size"], width)
        self.final_layer_norm = nn.LayerNorm(width, known["layer_norm_eps"])

    def forward(
        self, x: Tensor, padded: Tensor, bias: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """[batch, frames, width], padded by `padding`, the bias so far -> the same, the bias."""
        table = getattr(self.attention, "rel_attn_embed", None)
        bias = bias if table is None else table(x.shape[1])
        if self.stable:
            x = x + self.attention(self.layer_norm(x), padded, bias)
            return x + self._fed(self.final_layer_norm(x)), bias
        x = self.layer_norm(x + self.attention(x, padded, bias))
        return self.final_layer_norm(x + self._fed(x)), bias

    def _fed(self, x: Tensor) -> Tensor:
        linear = self.feed_forward
        return linear.output_dense(self.act(linear.intermediate_dense(x)))


def over_own(x: Tensor, real: Tensor, eps: float) -> Tensor:
    """Mean 0 and variance 1 along the last axis, of what is `real` (1 or 0); the rest is 0."""
    count = real.sum(-1, keepdim=True).clamp(min=1.0)
    away = (x - (x * real).sum(-1, keepdim=True) / count) * real
    return away / ((away * away).sum(-1, keepdim=True) / count + eps).sqrt()
