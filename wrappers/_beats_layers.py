"""The transformer inside BEATs: positions by convolution, attention under a gated relative bias."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from alm.errors import BadCheckpoint

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"gelu": F.gelu, "relu": F.relu}
# Far below any logit: its exponential is exactly zero. float16 can hold it, minus infinity times
# zero it could not.
NEVER = -3e4


class Encoder(nn.Module):
    """Positions, then layers; weights have the names of the original's TransformerEncoder."""

    def __init__(self, known: Mapping[str, Any], most_tokens: int) -> None:
        super().__init__()
        if known["deep_norm"] and known["layer_norm_first"]:
            raise BadCheckpoint("BEATs' deep_norm and layer_norm_first exclude each other")
        width, taps = known["encoder_embed_dim"], known["conv_pos"]
        groups = known["conv_pos_groups"]
        self.pos_conv = nn.Sequential(
            nn.Conv1d(width, width, taps, padding=taps // 2, groups=groups)
        )
        self.layer_norm = nn.LayerNorm(width)
        self.norm_first = known["layer_norm_first"]
        self.layers = nn.ModuleList(Layer(known) for _ in range(known["encoder_layers"]))
        relative = known["relative_position_embedding"]
        self.relative_attention_bias = RelativeBias(known, most_tokens) if relative else None

    def forward(self, x: Tensor, real: Tensor) -> Tensor:
        """[batch, tokens, width], 1 or 0 [batch, tokens] -> [batch, tokens, width]."""
        tokens = x.shape[1]
        inside = real.unsqueeze(2)
        x = x * inside  # the convolution sees past a row's end what it sees past the batch's
        near = self.pos_conv(x.transpose(1, 2))[:, :, :tokens]  # an even kernel gives one too many
        x = x + F.gelu(near).transpose(1, 2)
        x = x if self.norm_first else self.layer_norm(x)
        mask = ((1.0 - real) * NEVER).view(-1, 1, 1, tokens)
        relative = self.relative_attention_bias
        bias = None if relative is None else relative(tokens)
        for layer in self.layers:
            x = layer(x, mask, bias)
        x = self.layer_norm(x) if self.norm_first else x
        return x * inside


class RelativeBias(nn.Module):
    """A bias for each head and distance, from one table that all layers share."""

    buckets: Tensor

    def __init__(self, known: Mapping[str, Any], most_tokens: int) -> None:
        super().__init__()
        self.most = most_tokens
        self.weight = nn.Parameter(
            torch.zeros(known["num_buckets"], known["encoder_attention_heads"])
        )
        distances = torch.arange(1 - most_tokens, most_tokens)
        found = buckets(distances, known["num_buckets"], known["max_distance"])
        self.register_buffer("buckets", found, persistent=False)

    def forward(self, tokens: int) -> Tensor:
        """[1, heads, tokens, tokens], rows are queries; made once, and not once for each row."""
        by_distance = F.embedding(self.buckets, self.weight).T  # [heads, 2 * most - 1]
        token = torch.arange(tokens, device=self.weight.device)
        distance = token - token.unsqueeze(1) + (self.most - 1)  # key minus query, from zero
        return by_distance.index_select(1, distance.flatten()).view(1, -1, tokens, tokens)


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

    def forward(self, x: Tensor, mask: Tensor, bias: Tensor | None) -> Tensor:
        if self.norm_first:
            x = x + self.self_attn(self.self_attn_layer_norm(x), mask, bias)
            return x + self.feed_forward(self.final_layer_norm(x))
        x = self.self_attn_layer_norm(x * self.alpha + self.self_attn(x, mask, bias))
        return self.final_layer_norm(x * self.alpha + self.feed_forward(x))

    def feed_forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.activation(self.fc1(x)))


class Attention(nn.Module):
    """Attention whose relative bias each query gates (WavLM, arXiv 2110.13900, section 3.1)."""

    def __init__(self, known: Mapping[str, Any]) -> None:
        super().__init__()
        width, self.heads = known["encoder_embed_dim"], known["encoder_attention_heads"]
        if width % self.heads:
            raise BadCheckpoint(f"BEATs' width {width} is not divisible by its {self.heads} heads")
        self.scale = (width // self.heads) ** -0.5
        self.k_proj = nn.Linear(width, width)
        self.v_proj = nn.Linear(width, width)
        self.q_proj = nn.Linear(width, width)
        self.out_proj = nn.Linear(width, width)
        # Without positions there is nothing to gate, whatever gru_rel_pos says.
        self.gated = known["gru_rel_pos"] and known["relative_position_embedding"]
        if self.gated:
            self.grep_linear = nn.Linear(width // self.heads, 2)
            self.grep_a = nn.Parameter(torch.ones(1, self.heads, 1, 1))

    def forward(self, x: Tensor, mask: Tensor, bias: Tensor | None) -> Tensor:
        """x [batch, tokens, width], mask [batch, 1, 1, keys], bias [1, heads, queries, keys]."""
        batch, tokens, width = x.shape
        split = (batch, tokens, self.heads, width // self.heads)
        q = self.q_proj(x).view(split).transpose(1, 2)
        k = self.k_proj(x).view(split).permute(0, 2, 3, 1)
        v = self.v_proj(x).view(split).transpose(1, 2)
        logits = (q * self.scale) @ k + mask
        if bias is not None:
            logits = logits + (self.gate(q) * bias if self.gated else bias)
        return self.out_proj((logits.softmax(-1) @ v).transpose(1, 2).reshape(x.shape))

    def gate(self, q: Tensor) -> Tensor:
        """How much of its positions each query wants: [batch, heads, tokens, 1]."""
        first, second = self.grep_linear(q).sigmoid().chunk(2, dim=-1)
        return first * (second * self.grep_a - 1.0) + 2.0


def _activation(name: str) -> Callable[[Tensor], Tensor]:
    if name not in ACTIVATIONS:
        raise BadCheckpoint(
            f"BEATs' activation_fn {name!r} is unknown; known are {', '.join(ACTIVATIONS)}"
        )
    return ACTIVATIONS[name]
