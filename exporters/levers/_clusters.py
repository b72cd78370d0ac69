"""Which Linears get components, how many, and whether they share them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from exporters.levers._principal import (
    INPUTS,
    LAYERS,
    Basis,
    Place,
    Rooted,
    alone,
    joined,
    pooled,
)

Shares = Callable[[Place], float]  # the share of its energy that a Linear is to keep


@dataclass(frozen=True)
class Chosen:
    """What a cluster of Linears becomes."""

    bases: tuple[Basis, ...]  # cut to their ranks
    operations: int  # of a row, those of Linears that stay as they are counted too
    dense: int  # operations of all as they are


@dataclass(frozen=True)
class Cluster:
    """Linears that are decided on together: each with components of its own, or all with shared."""

    own: tuple[Basis, ...]
    shared: Basis | None = None

    @property
    def dense(self) -> int:
        """Operations of a row in the Linears as they are."""
        return sum(basis.dense for basis in self.own)

    def choose(self, shares: Shares, below: float) -> tuple[list[tuple[Basis, int]], int]:
        """Bases and ranks that keep the shares, and the operations of all that comes out.

        A Linear stays as it is where its factors would not take less than `below` of its
        operations. Components of several are shared where that is less than each with its own:
        operations where the input is the same, stored weights in neighbouring layers.
        """
        own = [(basis, _rank(basis, shares, below)) for basis in self.own]
        operations, stored = (
            sum(count(basis, rank) if rank else basis.dense for basis, rank in own)
            for count in (Basis.operations, Basis.stored)
        )
        rank = _rank(self.shared, shares, below) if self.shared else 0
        if self.shared and rank:
            less = (
                self.shared.operations(rank) < operations
                if self.shared.how == INPUTS
                else self.shared.stored(rank) < stored
            )
            if less:
                return [(self.shared, rank)], self.shared.operations(rank)
        return [(basis, rank) for basis, rank in own if rank], operations

    def chosen(self, shares: Shares, below: float) -> Chosen:
        """What comes out, and none of what it was chosen from."""
        bases, operations = self.choose(shares, below)
        return Chosen(tuple(b.cut(rank) for b, rank in bases), operations, self.dense)


def _rank(basis: Basis, shares: Shares, below: float) -> int:
    rank = basis.rank([shares(linear.place) for linear in basis.linears])
    return rank if basis.operations(rank) < below * basis.dense else 0


def clusters(
    groups: Iterable[Sequence[Rooted]], sharing: Sequence[str], below: float
) -> Iterator[Cluster]:
    """Clusters of Linears that come in groups with the same input, in the order of a run.

    Neighbours wait for each other: the roots of a layer or two are held.
    """
    waiting: dict[tuple[str, int, int], Rooted] = {}
    for group in groups:
        if INPUTS in sharing and len(group) > 1:
            own = tuple(alone(*each, below) for each in group)
            yield Cluster(own, joined(group, below))
            continue
        for linear, root in group:
            if LAYERS not in sharing:
                yield Cluster((alone(linear, root, below),))
                continue
            alike = (linear.place.kind, linear.inputs, linear.outputs)
            if alike not in waiting:
                waiting[alike] = (linear, root)
                continue
            pair = [waiting.pop(alike), (linear, root)]
            yield Cluster(tuple(alone(*each, below) for each in pair), pooled(pair, below))
    for linear, root in waiting.values():
        yield Cluster((alone(linear, root, below),))


def fitted(
    every: Sequence[Cluster], size: float, shares_at: Callable[[float], Shares], below: float
) -> float:
    """The largest share of energy at which no more than `size` of all operations come out; or 0."""
    most, low, high = size * sum(cluster.dense for cluster in every), 0.0, 1.0

    def fits(energy: float) -> bool:
        shares = shares_at(energy)
        return sum(cluster.choose(shares, below)[1] for cluster in every) <= most

    if not fits(low):
        return 0.0
    for _ in range(30):
        middle = (low + high) / 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return max(low, 1e-9)
