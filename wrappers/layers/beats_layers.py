"""The transformer inside BEATs: positions by convolution, attention under a gated relative bias.

The bias and its gate are WavLM's as well.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from alm.errors import BadCheckpoint
from wrappers import dialect
from wrappers.layers.attention import split

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"gelu": F.gelu, "relu": F.relu}


class Encoder(nn.Module):
    """Positions, then layers; weights have the names of the original's TransformerEncoder."""

    def __init__(self, known: Mapping[str, Any], most_moments: int, patches: int) -> None:
        super().__init__()
        if known["deep_norm"] and known["layer_norm_first"]:
            raise BadCheckpoint("BEATs' deep_norm and layer_norm_first exclude each other")
        width, taps = known["encoder_embed_dim"], known["conv_pos"]
        groups = known["conv_pos_groups"]
        if width % groups:
            raise BadCheckpoint(
                f"BEATs' width {width} is not divisible by its {groups} conv_pos_groups"
            )
        self.pos_conv = nn.Sequential(
            nn.Conv1d(width, width, taps, padding=taps // 2, groups=groups)
        )
        self.layer_norm = nn.LayerNorm(width)
        self.norm_first = known["layer_norm_first"]
        self.dialect = dialect.current()
        self.layers = nn.ModuleList(Layer(known) for _ in range(known["encoder_layers"]))
        self.relative_attention_bias = (
            RelativeBias(
                known["num_buckets"],
                known["encoder_attention_heads"],
                known["max_distance"],
                most_moments * patches,
                patches,
            )
            if known["relative_position_embedding"]
            else None
        )

    def forward(self, x: Tensor, real: Tensor) -> Tensor:
        """[batch, tokens, width], 1 or 0 [batch, tokens] -> [batch, tokens, width]."""
        tokens = x.shape[1]
        inside = real.unsqueeze(2)
        x = x * inside  # the convolution sees past a row's end what it sees past the batch's
        near = self.pos_conv(x.transpose(1, 2))[:, :, :tokens]  # an even kernel gives one too many
        x = x + F.gelu(near).transpose(1, 2)
        x = x if self.norm_first else self.layer_norm(x)
        padded = self.dialect.encoder_padding(real)
        relative = self.relative_attention_bias
        bias = None if relative is None else relative(tokens)
        for layer in self.layers:
            x = layer(x, padded, bias)
        x = self.layer_norm(x) if self.norm_first else x
        return x * inside


class RelativeBias(nn.Module):
    """A bias for each head and distance, from one table that all layers share.

    A row of the bias is gathered in pieces of neighbours, 32 bytes at a time where single values
    cost six times as long.

    Args:
        count: rows of the table, half of them for keys after the query.
        heads: its columns.
        furthest: from this distance on all share a row.
        most: tokens of the longest clip.
        piece: neighbours that are gathered at once; the tokens of any clip must be whole pieces.
            (With a part of a piece cut off, torch.export takes another length for the same.)

    Raises:
        BadCheckpoint: a table that leaves no row for far distances.
    """

    buckets: Tensor

    def __init__(self, count: int, heads: int, furthest: int, most: int, piece: int) -> None:
        super().__init__()
        if furthest <= count // 4:
            raise BadCheckpoint(
                f"relative positions have num_buckets {count} and max_distance {furthest}; it must "
                f"be above a quarter of them, {count // 4}, which are single distances"
            )
        self.most, self.piece = most, piece
        self.weight = nn.Parameter(torch.zeros(count, heads))
        last = self.most - piece
        first = torch.arange(-self.most + 1, last + 1, device="cpu")  # distance of a piece's first
        distances = first.unsqueeze(1) + torch.arange(piece, device="cpu")
        rows = buckets(distances, count, furthest)
        self.register_buffer("buckets", rows, persistent=False)

    def forward(self, tokens: int) -> Tensor:
        """[1, heads, tokens, tokens], rows are queries; made once, and not once for each row."""
        pieces = F.embedding(self.buckets, self.weight).permute(2, 0, 1)  # [heads, first, piece]
        device = self.weight.device
        query = torch.arange(tokens, device=device).unsqueeze(1)
        key = torch.arange(tokens // self.piece, device=device) * self.piece
        first = key - query + (self.most - 1)  # key minus query, from zero
        bias = pieces.index_select(1, first.flatten())
        return bias.reshape(1, pieces.shape[0], tokens, tokens)


def buckets(distances: Tensor, count: int, furthest: int) -> Tensor:
    """The table's row for each distance: near ones have their own, far ones share by logarithm.

    In float32 with the original's order of operations, because borders fall between integers.
    """
    half = count // 2  # the upper half is for keys after the query
    exact = half // 2
    away = distances.abs()
    # Near ones are clamped only to keep the logarithm finite; they do not use it.
    far = torch.log(away.clamp(min=1).float() / exact) / math.log(furthest / exact) * (half - exact)
    shared = (exact + far.to(torch.long)).clamp(max=half - 1)
    return (distances > 0).long() * half + torch.where(away < exact, away, shared)


class Layer(nn.Module):
    """A transformer layer: post-norm with DeepNorm's residual, or pre-norm."""

    def __init__(self, known: Mapping[str, Any]) -> None:
        super().__init__()
        width, hidden = known["encoder_embed_dim"], known["encoder_ffn_embed_dim"]
        self.norm_first = known["layer_norm_first"]
        # DeepNorm (arXiv 2203.00555): the residual weighs (2 * layers)^(1/4).
        self.alpha = (2.0 * known["encoder_layers"]) ** 0.25 if known["deep_norm"] else 1.0
        self.self_attn = Attention(known)
        self.self_attn_layer_norm = nn.LayerNorm(width)
        self.activation = _activation(known["activation_fn"])
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)
        self.final_layer_norm = nn.LayerNorm(width)

    def forward(self, x: Tensor, padded: Tensor, bias: Tensor | None) -> Tensor:
        if self.norm_first:
            x = x + self.self_attn(self.self_attn_layer_norm(x), padded, bias)
            return x + self.feed_forward(self.final_layer_norm(x))
        x = self.self_attn_layer_norm(x * self.alpha + self.self_attn(x, padded, bias))
        return self.final_layer_norm(x * self.alpha + self.feed_forward(x))

    def feed_forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.activation(self.fc1(x)))


class Attention(nn.Module):
    """Attention whose relative bias each query gates (WavLM, arXiv 2110.13900, section 3.1)."""

    def __init__(self, known: Mapping[str, Any]) -> None:
        super().__init__()
        self.dialect = dialect.current()
        width, self.heads = known["encoder_embed_dim"], known["encoder_attention_heads"]
        if width % self.heads:
            raise BadCheckpoint(f"BEATs' width {width} is not divisible by its {self.heads} heads")
        self.k_proj = nn.Linear(width, width)
        self.v_proj = nn.Linear(width, width)
        self.q_proj = nn.Linear(width, width)
        self.out_proj = nn.Linear(width, width)
        # Without positions there is nothing to gate, whatever gru_rel_pos says.
        self.gated = known["gru_rel_pos"] and known["relative_position_embedding"]
        if self.gated:
            self.grep_linear = nn.Linear(width // self.heads, 2)
            self.grep_a = nn.Parameter(torch.ones(1, self.heads, 1, 1))

    def forward(self, x: Tensor, padded: Tensor, bias: Tensor | None) -> Tensor:
        """x [batch, tokens, width], padded by `padding`, bias [1, heads, queries, keys]."""
        q, k, v = self.q_proj(x), self.k_proj(x), self.v_proj(x)
        if bias is not None and self.gated:
            bias = gate(q, self.heads, self.grep_linear, self.grep_a) * bias
        return self.out_proj(self.dialect.encoder_attend(q, k, v, self.heads, bias, padded))


def gate(x: Tensor, heads: int, linear: nn.Linear, scale: Tensor) -> Tensor:
    """How much of its positions each query wants: [batch, heads, tokens, 1].

    Args:
        x: [batch, tokens, width], of which each head sees its own part.
        heads: how many there are.
        linear: width / heads -> 2.
        scale: [1, heads, 1, 1].
    """
    gates = linear(split(x, heads)).sigmoid().transpose(1, 2)
    first, second = gates.chunk(2, dim=-1)
    return first * (second * scale - 1.0) + 2.0


def _activation(name: str) -> Callable[[Tensor], Tensor]:
    if name not in ACTIVATIONS:
        raise BadCheckpoint(
            f"BEATs' activation_fn {name!r} is unknown; known are {', '.join(ACTIVATIONS)}"
        )
    return ACTIVATIONS[name]
