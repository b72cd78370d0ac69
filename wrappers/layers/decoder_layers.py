"""Norm, attention, MLP and layer of a decoder; an LLM's file may bring its own over these.

Tensors are named as in the checkpoints.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from wrappers import dialect
from wrappers.layers.spec import ACTIVATIONS, Spec


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

    def products(self, x: Tensor) -> tuple[Tensor, ...]:
        """Queries, keys and values of x [batch, seq, hidden], each [batch, seq, heads * head_dim].

        A file whose LLM has them in one weight overrides this with `packed`, and that as well.
        """
        return self.q_proj(x), self.k_proj(x), self.v_proj(x)

    def packed(self, x: Tensor) -> Tensor:
        """The same in one product, side by side: [batch, seq, (heads + 2 kv_heads) * head_dim]."""
        linears = (self.q_proj, self.k_proj, self.v_proj)
        weight = torch.cat(tuple(linear.weight for linear in linears))
        biases = tuple(linear.bias for linear in linears if linear.bias is not None)
        return nn.functional.linear(x, weight, torch.cat(biases) if biases else None)

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
    ) -> tuple[Tensor, Tensor, Tensor]:
        """x [batch, seq, hidden]; distance [batch, 1, seq, keys] from key to query in positions.

        rope: cosines and sines [batch, seq, head_dim/2], and where queries have others, theirs too.
        """
        if not self.rotates:  # turned by no angle, exactly: x * 1 - y * 0
            rope = torch.ones_like(rope[0]), torch.zeros_like(rope[1])
        fused = self.dialect.grouped_query
        if fused and torch.compiler.is_exporting():
            y, key, value = fused(self, x, rope, past_lengths, past_key, past_value)
            return self.o_proj(y), key, value
        batch, seq, _ = x.shape

        def heads(y: Tensor) -> Tensor:
            return y.reshape(batch, seq, -1, self.spec.head_dim).transpose(1, 2)

        q, k, v = self.products(x)
        q, k = self.before_rope(q, k)
        q = self.dialect.rotate(heads(q), *rope[-2:])
        k = self.dialect.rotate(heads(k), *rope[:2])
        v = heads(v)
        spare = past_key.shape[-1] - self.spec.head_dim  # where a dialect wants wider heads
        if spare:
            q, k, v = (nn.functional.pad(tensor, (0, spare)) for tensor in (q, k, v))
        key = self.dialect.extend(past_key, k.to(self.cache_dtype), past_lengths)
        value = self.dialect.extend(past_value, v.to(self.cache_dtype), past_lengths)
        allowed = distance >= 0
        if self.window:
            allowed = allowed & (distance < self.window)
        scale = self.spec.scale or self.spec.head_dim**-0.5
        y = self.dialect.attend(
            q.to(self.cache_dtype), key, value, allowed, scale, self.spec.softcap
        )
        y = y.float()[..., : self.spec.head_dim] if spare else y.float()
        return self.o_proj(y.transpose(1, 2).reshape(batch, seq, -1)), key, value


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

    def forward(self, x: Tensor, *context: Any) -> tuple[Tensor, ...]:
        """The residual stream, and the layer's cache where it attends."""
        cache: list[Tensor] = []
        if self.attends:
            y, *cache = self.self_attn(self.input_layernorm(x), *context)
            x = x + (self.post_attention_layernorm(y) if self.sandwich else y)
        if self.computes and self.sandwich:
            y = self.mlp(self.pre_feedforward_layernorm(x))
            x = x + self.post_feedforward_layernorm(y)
        elif self.computes:
            x = x + self.mlp(self.post_attention_layernorm(x))
        return x, *cache
