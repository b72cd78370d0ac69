"""Principal components of what Linears give, and how many of them keep a share of the energy.

With V [out, k] the first k of them, y = W' x + b becomes V V' W' x + mean + V V' (b - mean), two
products of k columns and rows. That is what LITEALLM (wanhhe/LITEALLM, low_rank_whisper_new.py) and
LiteASR (arXiv 2502.20583) do. Energy is the sum of the eigenvalues of the covariance.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

STEP = 16  # ranks are multiples of it
LAYER = re.compile(r"(?:^|.*?\.)(\d+)\.")  # of a weight's name: `encoder.layers.3.fc1.weight`
ALONE, INPUTS, LAYERS = "alone", "inputs", "layers"


@dataclass(frozen=True)
class Place:
    """Where a Linear stands: which layer of how many, and whether it is attention's."""

    name: str  # of its weight
    depth: float  # 0 for the first layer, 1 for the last, and where there is one or none
    attention: bool

    @property
    def kind(self) -> str:
        """The name without the layer's number: the same for Linears that do the same."""
        return LAYER.sub("", self.name, count=1)


def places(names: Sequence[str]) -> dict[str, Place]:
    """The place of every Linear, by the name of its weight."""
    found = {name: LAYER.match(name) for name in names}
    most: dict[str, int] = {}
    for match in found.values():
        if match:
            prefix = match.string[: match.start(1)]
            most[prefix] = max(most.get(prefix, 0), int(match[1]))

    def depth(name: str) -> float:
        match = found[name]
        last = most[name[: match.start(1)]] if match else 0
        return int(match[1]) / last if match and last else 1.0

    return {n: Place(n, depth(n), bool(re.search("attn|attention", n))) for n in names}


@dataclass(frozen=True)
class Linear:
    """A Linear, and what is known of the numbers that it gives before its bias is added."""

    place: Place
    inputs: int
    outputs: int
    mean: Tensor  # float64 [out]
    energy: float

    @property
    def weights(self) -> int:
        """Of W: as many operations are a row's."""
        return self.inputs * self.outputs


Rooted = tuple[Linear, Tensor]  # the root [out, r]: times itself turned it is the covariance


@dataclass(frozen=True)
class Basis:
    """Components in which one Linear is written, or several.

    Of Linears with the same input (INPUTS) they are those of all outputs joined, and the way down
    is one. Of the same Linear in neighbouring layers (LAYERS) they are those of both, and the way
    up is one. Each Linear counts by its own energy, so that none drowns beside a louder one.
    """

    how: str  # ALONE, INPUTS or LAYERS
    linears: tuple[Linear, ...]
    kept: tuple[Tensor, ...]  # float64 [cap] each: the share of its energy in the first so many
    components: tuple[Tensor, ...]  # float32 [out, cap] each

    @property
    def dense(self) -> int:
        """Weights and operations of the Linears as they are."""
        return sum(linear.weights for linear in self.linears)

    def rank(self, shares: Sequence[float]) -> int:
        """How many components keep these shares of the energies, in steps; 0: nearly all do."""
        needed = 1
        for kept, share in zip(self.kept, shares, strict=True):
            enough = (kept >= share).nonzero()
            if not len(enough):
                return 0
            needed = max(needed, int(enough[0]) + 1)
        rank = -(-needed // STEP) * STEP
        most = sum(
            x.outputs for x in self.linears[: len(self.linears) if self.how == INPUTS else 1]
        )
        return rank if rank <= len(self.kept[0]) and rank < most else 0

    def operations(self, rank: int) -> int:
        """Of a row in all of the Linears."""
        ways_down = self.linears[:1] if self.how == INPUTS else self.linears
        return rank * sum([*(x.inputs for x in ways_down), *(x.outputs for x in self.linears)])

    def stored(self, rank: int) -> int:
        """Weights of all of the Linears."""
        spared = self.linears[1:] if self.how == LAYERS else ()
        return self.operations(rank) - rank * sum(x.outputs for x in spared)

    def cut(self, rank: int) -> Basis:
        """The first so many components, in memory of their own."""
        kept = tuple(each[:rank].clone() for each in self.kept)
        first = {id(each): each[:, :rank].clone() for each in self.components}
        return Basis(
            self.how, self.linears, kept, tuple(first[id(each)] for each in self.components)
        )


def root_of(covariance: Tensor) -> Tensor:
    """The root [n, n] of a covariance; W' times that of the inputs' is one of the outputs'."""
    values, vectors = torch.linalg.eigh(covariance)
    return vectors * values.clamp(min=0).sqrt()


def alone(linear: Linear, root: Tensor, below: float) -> Basis:
    """A Linear's own components."""
    cap = _cap(linear.weights / (linear.inputs + linear.outputs), below, linear.outputs)
    values, vectors = principal(root, cap)
    kept = (values.cumsum(0) / values.sum())[:cap]
    return Basis(ALONE, (linear,), (kept,), (vectors.float(),))


def joined(rooted: Sequence[Rooted], below: float) -> Basis:
    """The components of all outputs of Linears with the same input."""
    linears = tuple(linear for linear, _ in rooted)
    up, dense = sum(x.outputs for x in linears), sum(x.weights for x in linears)
    cap = _cap(dense / (up + linears[0].inputs), below, up)
    values, vectors = principal(torch.cat([root / x.energy**0.5 for x, root in rooted]), cap)
    pieces = vectors.split([x.outputs for x in linears])
    kept = tuple((values[:cap] * piece.square().sum(0)).cumsum(0) for piece in pieces)
    return Basis(INPUTS, linears, kept, tuple(piece.float() for piece in pieces))


def pooled(rooted: Sequence[Rooted], below: float) -> Basis:
    """The components of what the same Linear gives in several layers."""
    linears = tuple(linear for linear, _ in rooted)
    first = linears[0]
    cap = _cap(first.weights / (first.inputs + first.outputs), below, first.outputs)
    _, vectors = principal(torch.cat([root / x.energy**0.5 for x, root in rooted], 1), cap)
    kept = tuple((root.T @ vectors).square().sum(0).cumsum(0) / x.energy for x, root in rooted)
    return Basis(LAYERS, linears, kept, (vectors.float(),) * len(linears))


def principal(root: Tensor, cap: int) -> tuple[Tensor, Tensor]:
    """Eigenvalues [n], the largest first, and `cap` eigenvectors [rows, cap] of root times root'.

    They come from the smaller of the root's two squares: n is at least `cap`. Vectors without
    energy may be zeros.
    """
    rows, columns = root.shape
    if rows <= columns:
        values, vectors = torch.linalg.eigh(root @ root.T)
        return values.flip(0).clamp(min=0), vectors.flip(1)[:, :cap]
    values, turned = torch.linalg.eigh(root.T @ root)
    values, turned = values.flip(0).clamp(min=0), turned.flip(1)[:, :cap]
    vectors = torch.zeros(rows, cap, dtype=root.dtype)
    # Below that an eigenvalue is rounding, and so is a vector that is divided by its root.
    sound = int((values[:cap] > 1e-13 * values[:1]).sum())
    vectors[:, :sound] = (root @ turned[:, :sound]) / values[:sound].sqrt()
    return torch.nn.functional.pad(values, (0, max(0, cap - columns))), vectors


def _cap(even: float, below: float, outputs: int) -> int:
    """Components that may be of use: up to where they would cost as much as is allowed."""
    return min(outputs, -(-(int(even * below) + 1) // STEP) * STEP)
