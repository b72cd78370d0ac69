"""Norm, attention, MLP and layer of a decoder; an LLM's file may bring its own over these.

Tensors are named as in the checkpoints.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from wrappers import dialect, slots
from wrappers.layers.spec import ACTIVATIONS, Spec


def picked(x: Tensor, rows: Tensor | None) -> Tensor:
    """Of x [batch, seq, ...] the positions `rows` [batch, kept]; all of them where rows is None."""
    if rows is None:
        return x
    index = rows.reshape(*rows.shape, *[1] * (x.ndim - 2))
    return x.gather(1, index.expand(-1, -1, *x.shape[2:]))


class Norm(nn.Module):
    """Root-mean-square norm in float32, written in the dialect that is bound."""

    def __init__(self, width: int, eps: float, offset: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps, self.offset, self.dialect = eps, offset, dialect.current()

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight + self.offset if self.offset else self.weight
        return self.dialect.rms_norm(x, weight, self.eps)


class Attention(nn.Module):
    """Grouped-query attention over the cache."""

    def __init__(self, spec: Spec, window: int) -> None:
        super().__init__()
        self.spec, self.window, self.dialect = spec, window, dialect.current()
        self.rotates = True  # whether rope turns this layer's queries and keys
        self.cache_dtype = self.compute_dtype = torch.float32
        self.scales: dict[str, Tensor] = {}  # of a cache of integers, by kind: [kv_heads * wide]
        self.sizes = [spec.heads * spec.head_dim, *2 * [spec.kv_heads * spec.head_dim]]
        self.make_products()
        self.o_proj = nn.Linear(self.sizes[0], spec.hidden, bias=spec.output_bias)

    def make_products(self) -> None:
        """The layers whose products are queries, keys and values, under their published names."""
        hidden, bias = self.spec.hidden, self.spec.qkv_bias
        self.q_proj, self.k_proj, self.v_proj = (
            nn.Linear(hidden, size, bias=bias) for size in self.sizes
        )

    def products(self, x: Tensor, rows: Tensor | None) -> tuple[Tensor, ...]:
        """Queries, keys and values of x [batch, seq, hidden], each [batch, seq, heads * head_dim].

        Of the queries only the positions `rows`. A file whose LLM has the three in one weight
        overrides `packed` and takes `unpacked` for this.
        """
        return self.q_proj(picked(x, rows)), self.k_proj(x), self.v_proj(x)

    def unpacked(self, x: Tensor, rows: Tensor | None) -> tuple[Tensor, ...]:
        """`products` out of `packed`."""
        q, k, v = self.packed(x).split(self.sizes, -1)
        return picked(q, rows), k, v

    def packed(self, x: Tensor) -> Tensor:
        """The same in one product, side by side: [batch, seq, (heads + 2 kv_heads) * head_dim]."""
        linears = (self.q_proj, self.k_proj, self.v_proj)
        weight = torch.cat(tuple(linear.weight for linear in linears))
        biases = tuple(linear.bias for linear in linears if linear.bias is not None)
        y = nn.functional.linear(x, weight, torch.cat(biases) if biases else None)
        return slots.joined(y, x, linears)

    def before_rope(self, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        """Queries and keys [batch, seq, heads * head_dim] as rope meets them: an LLM's file norms.

        Every dialect calls it, the one that packs the three products as well.
        """
        return q, k

    def forward(
        self,
        x: Tensor,
        rope: tuple[Tensor, ...],
        distance: Tensor,
        past_lengths: Tensor,
        past_key: Tensor,
        past_value: Tensor,
        rows: Tensor | None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """x [batch, seq, hidden]; distance [batch, 1, seq, keys] from key to query in positions.

        rope: cosines and sines [batch, seq, head_dim/2], and where queries have others, theirs too.
        rows: what the positions [batch, kept] attend to is wanted alone; keys are kept of all.
        """
        if not self.rotates:  # turned by no angle, exactly: x * 1 - y * 0
            rope = torch.ones_like(rope[0]), torch.zeros_like(rope[1])
        fused = self.dialect.grouped_query
        if fused and torch.compiler.is_exporting():
            y, key, value = fused(self, x, rope, past_lengths, past_key, past_value)
            return self.o_proj(picked(y, rows)), key, value

        def heads(y: Tensor) -> Tensor:
            return y.unflatten(-1, (-1, self.spec.head_dim)).transpose(1, 2)

        q, k, v = self.products(x, rows)
        q, k = self.before_rope(q, k)
        q = self.dialect.rotate(heads(q), *(picked(angles, rows) for angles in rope[-2:]))
        k = self.dialect.rotate(heads(k), *rope[:2])
        v = heads(v)
        spare = past_key.shape[-1] - self.spec.head_dim  # where a dialect wants wider heads
        if spare:
            q, k, v = (nn.functional.pad(tensor, (0, spare)) for tensor in (q, k, v))
        key = self.dialect.extend(past_key, k.to(self.cache_dtype), past_lengths)
        value = self.dialect.extend(past_value, v.to(self.cache_dtype), past_lengths)
        distance = picked(distance.transpose(1, 2), rows).transpose(1, 2)
        allowed = distance >= 0
        if self.window:
            allowed = allowed & (distance < self.window)
        scale = self.spec.scale or self.spec.head_dim**-0.5
        y = self.dialect.attend(
            q.to(self.cache_dtype), key, value, allowed, scale, self.spec.softcap
        )
        y = y.float()[..., : self.spec.head_dim] if spare else y.float()
        return self.o_proj(y.transpose(1, 2).flatten(2)), key, value


class MLP(nn.Module):
    """down(act(gate(x)) * up(x))"""

    def __init__(self, spec: Spec) -> None:
        super().__init__()
        self.act = ACTIVATIONS[spec.activation]
        self.gate_proj = nn.Linear(spec.hidden, spec.intermediate, bias=spec.mlp_bias)
        self.up_proj = nn.Linear(spec.hidden, spec.intermediate, bias=spec.mlp_bias)
        below = spec.mlp_bias or spec.down_bias
        self.down_proj = nn.Linear(spec.intermediate, spec.hidden, bias=below)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(self.act(self.gate_proj(x)) * self.up_proj(x))


class Layer(nn.Module):
    """Attention and MLP on a residual stream; a pruned layer may lack either, with its norms."""

    def __init__(self, spec: Spec, window: int) -> None:
        super().__init__()

        def norm() -> Norm:
            return Norm(spec.hidden, spec.eps, spec.norm_offset)

        self.sandwich, self.attends, self.computes = spec.sandwich, spec.heads, spec.intermediate
        if self.attends:
            self.self_attn = (spec.attention or Attention)(spec, window)
            self.input_layernorm = norm()
        if self.computes:
            self.mlp = (spec.mlp or MLP)(spec)
        if self.attends if self.sandwich else self.computes:
            self.post_attention_layernorm = norm()
        if self.sandwich and self.computes:
            self.pre_feedforward_layernorm = norm()
            self.post_feedforward_layernorm = norm()

    def forward(
        self, x: Tensor, *context: Any, rows: Tensor | None = None, **told: Tensor
    ) -> tuple[Tensor, ...]:
        """The residual stream, and the layer's cache where it attends.

        rows: no later layer reads another position than these [batch, kept], so that keys and
        values alone are computed of all. `told` is what the LLM's condition says.
        """
        cache: list[Tensor] = []
        if self.attends:
            y, *cache = self.self_attn(self.to_attention(x), *context, rows)
            x = self.with_attention(picked(x, rows), y)
        else:
            x = picked(x, rows)
        if self.computes:
            x = self.with_mlp(x, **told)
        return x, *cache

    def to_attention(self, x: Tensor) -> Tensor:
        """What attention gets of the residual stream; this and the next two an LLM overrides."""
        return self.input_layernorm(x)

    def with_attention(self, x: Tensor, y: Tensor) -> Tensor:
        """The residual stream with what attention gave."""
        return x + (self.post_attention_layernorm(y) if self.sandwich else y)

    def with_mlp(self, x: Tensor) -> Tensor:
        """The residual stream with what the MLP gives."""
        if self.sandwich:
            y = self.mlp(self.pre_feedforward_layernorm(x))
            return x + self.post_feedforward_layernorm(y)
        return x + self.mlp(self.post_attention_layernorm(x))
