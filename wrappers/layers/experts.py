"""A mixture of experts: many MLPs, of which a router picks a few for each token, by itself alone.

Tensors are named as transformers 5 holds them in memory; `checkpoint.weights.experts` reads files.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from wrappers import dialect
from wrappers.layers import decoder_layers
from wrappers.layers.spec import ACTIVATIONS, Mixture, Spec


class Experts(nn.Module):
    """The experts of a layer.

    `gate_up_proj` [experts, 2 * intermediate, hidden] holds the gates before the ups, `down_proj`
    is [experts, hidden, intermediate].
    """

    def __init__(self, spec: Spec) -> None:
        super().__init__()
        self.mixture = mixture = mixture_of(spec)
        self.activation, self.dialect = spec.activation, dialect.current()
        self.plain = False  # written as products, also where the dialect has an operator of it
        count, wide = mixture.experts, mixture.intermediate
        self.gate_up_proj = nn.Parameter(torch.zeros(count, 2 * wide, spec.hidden))
        self.down_proj = nn.Parameter(torch.zeros(count, spec.hidden, wide))

    @property
    def sparse(self) -> bool:
        """Whether a graph reads those experts alone that a token picks."""
        return bool(self.dialect.experts) and self.activation == "silu" and not self.plain

    @property
    def idle(self) -> int:
        """Weights that a graph does not read for one token."""
        count, active = self.mixture.experts, self.mixture.active
        weights = self.gate_up_proj.numel() + self.down_proj.numel()
        return weights // count * (count - active) if self.sparse else 0

    def routing(self, scores: Tensor) -> tuple[Tensor, Tensor]:
        """What a token's experts count, and which they are: [..., active], of scores [.., experts].

        Softmax over all experts in float32; where `normed`, over those that were picked.
        """
        shares, picked = scores.float().softmax(-1).topk(self.mixture.active, -1)
        if self.mixture.normed:
            shares = shares / shares.sum(-1, keepdim=True)
        return shares, picked

    def forward(self, x: Tensor, scores: Tensor) -> Tensor:
        """x [batch, seq, hidden] and the router's scores [batch, seq, experts]."""
        if not torch.compiler.is_exporting():
            return self._one_by_one(x, scores)
        fused = self.dialect.experts
        return fused(self, x, scores) if fused and self.sparse else self._together(x, scores)

    def _one_by_one(self, x: Tensor, scores: Tensor) -> Tensor:
        """Each expert with the tokens that picked it, as the original does it."""
        shares, picked = (part.flatten(0, -2) for part in self.routing(scores))
        rows, y = x.flatten(0, -2), torch.zeros_like(x).flatten(0, -2)
        for expert in picked.unique().tolist():
            tokens, place = torch.where(picked == expert)
            gate, up = nn.functional.linear(rows[tokens], self.gate_up_proj[expert]).chunk(2, -1)
            inner = ACTIVATIONS[self.activation](gate) * up
            made = nn.functional.linear(inner, self.down_proj[expert])
            y.index_add_(0, tokens, made * shares[tokens, place, None])
        return y.view_as(x)

    def _together(self, x: Tensor, scores: Tensor) -> Tensor:
        """All experts as one wide MLP, the inner values of those not picked times zero.

        Two plain products, which any backend has and any lever makes smaller: `experts / active`
        times the work of a token, and every weight is read.
        """
        shares, picked = self.routing(scores)
        chosen = picked[..., None] == torch.arange(self.mixture.experts)  # [.., active, experts]
        weights = (shares[..., None] * chosen.float()).sum(-2)
        wide = nn.functional.linear(x, self.gate_up_proj.flatten(0, 1))
        gate, up = wide.unflatten(-1, (self.mixture.experts, 2, -1)).unbind(-2)
        inner = ACTIVATIONS[self.activation](gate) * up * weights[..., None]
        return nn.functional.linear(inner.flatten(-2), self.down_proj.transpose(0, 1).flatten(1))


class Router(nn.Module):
    """Scores of experts; no Linear, as in transformers 5: adapters of all Linears leave it out."""

    def __init__(self, spec: Spec) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(mixture_of(spec).experts, spec.hidden))

    def forward(self, x: Tensor) -> Tensor:
        """x [batch, seq, hidden] -> [batch, seq, experts]."""
        return nn.functional.linear(x, self.weight)


class MLP(nn.Module):
    """Experts behind a router, and beside them, in some, one for every token with its own gate."""

    def __init__(self, spec: Spec) -> None:
        super().__init__()
        mixture = mixture_of(spec)
        self.gate = Router(spec)
        self.experts = Experts(spec)
        self.shares = bool(mixture.shared)
        if self.shares:
            self.shared_expert = decoder_layers.MLP(replace(spec, intermediate=mixture.shared))
            self.shared_expert_gate = nn.Linear(spec.hidden, 1, bias=False)

    @property
    def idle(self) -> int:
        """Weights that a graph does not read for one token."""
        return self.experts.idle

    def forward(self, x: Tensor) -> Tensor:
        y = self.experts(x, self.gate(x))
        if not self.shares:
            return y
        return y + torch.sigmoid(self.shared_expert_gate(x)) * self.shared_expert(x)


def mixture_of(spec: Spec) -> Mixture:
    """The mixture of a spec that has one."""
    assert spec.mixture is not None
    return spec.mixture


def without_operator(part: nn.Module) -> None:
    """Have the experts of a part written as plain products, in any dialect."""
    for module in part.modules():
        if isinstance(module, Experts):
            module.plain = True
