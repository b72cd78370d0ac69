"""Means and covariances of what goes into Linears, or comes out, over clips that a part hears.

Nothing of a clip is kept: each call of a Linear adds to sums of float64, n x n for n numbers. Of
input and output the narrower is summed, since one follows from the other; Linears that are called
with the same input, as those of queries, keys and values are, share the sums of that input.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from exporters.levers import Hear
from wrappers import Wrapper

MOST_BYTES = 2**30  # of all sums at a time; where there are more, the clips are heard again
ROWS = 4096  # that become float64 at a time


@dataclass(frozen=True)
class Group:
    """Linears whose statistics are one sum."""

    members: tuple[str, ...]  # paths in the part
    of_input: bool  # what is summed; with several members it is their input
    width: int  # numbers of it

    @property
    def bytes(self) -> int:
        """Of the sums."""
        return 8 * self.width * (self.width + 1)


class Moments:
    """Count, sum and sum of products of rows [n, width]."""

    def __init__(self, width: int) -> None:
        self.rows = 0
        self._sum = torch.zeros(width, dtype=torch.float64)
        self._products = torch.zeros(width, width, dtype=torch.float64)

    def add(self, values: Tensor) -> None:
        """Rows of any shape [..., width]."""
        for rows in values.detach().reshape(-1, len(self._sum)).split(ROWS):
            exact = rows.double()
            self.rows += len(exact)
            self._sum += exact.sum(0)
            self._products.addmm_(exact.T, exact)

    @property
    def mean(self) -> Tensor:
        """[width]"""
        return self._sum / max(self.rows, 1)

    @property
    def second(self) -> Tensor:
        """Mean of the products of two numbers of a row [width, width], X'X over the rows."""
        return self._products / max(self.rows, 1)

    def covariance(self) -> Tensor:
        """[width, width], symmetric, divided by the number of rows."""
        found = self._products / max(self.rows, 1) - torch.outer(self.mean, self.mean)
        return (found + found.T) / 2


def groups(part: Wrapper, hear: Hear) -> list[Group]:
    """The part's Linears that a clip runs through, in their order, found out by the first clip."""
    linears = {n: m for n, m in part.named_modules() if isinstance(m, nn.Linear)}
    leaders: dict[str, str] = {}  # Linear -> the first one with the same input
    apart: set[str] = set()  # those for which that is not so at every call
    before: list[Any] = [None, ""]  # the latest input, and who had it first

    def seen(name: str, x: Tensor) -> None:
        if x is not before[0]:
            before[:] = [x, name]
        leader = before[1]
        if leaders.setdefault(name, leader) != leader:
            apart.add(name)

    with _watched(linears, lambda name, x, _: seen(name, x)):
        hear(1)
    together: dict[str, list[str]] = {}
    for name, leader in leaders.items():
        alone = name in apart or leader in apart
        together.setdefault(name if alone else leader, []).append(name)
    return [_group(names, linears) for names in together.values()]


def _group(names: Sequence[str], linears: dict[str, nn.Linear]) -> Group:
    first = linears[names[0]]
    of_input = len(names) > 1 or first.in_features <= first.out_features
    return Group(tuple(names), of_input, first.in_features if of_input else first.out_features)


def gather(
    part: Wrapper, wanted: Sequence[Group], hear: Hear, most_bytes: int = MOST_BYTES
) -> Iterator[tuple[Group, Moments]]:
    """The statistics of each group, in their order.

    All clips are heard once for as many groups as `most_bytes` hold, and at least for one.
    """
    for some in _passes(wanted, most_bytes):
        found = {group.members[0]: (group, Moments(group.width)) for group in some}

        def take(
            name: str, x: Tensor, y: Tensor, found: dict[str, tuple[Group, Moments]] = found
        ) -> None:
            group, moments = found[name]
            moments.add(x if group.of_input else y)

        linears: Any = {name: part.get_submodule(name) for name in found}
        with _watched(linears, take):
            hear(0)
        while found:
            yield found.pop(next(iter(found)))


def _passes(wanted: Sequence[Group], most_bytes: int) -> Iterator[list[Group]]:
    some: list[Group] = []
    for group in wanted:
        if some and sum(each.bytes for each in some) + group.bytes > most_bytes:
            yield some
            some = []
        some.append(group)
    if some:
        yield some


@contextmanager
def _watched(
    linears: dict[str, nn.Linear], take: Callable[[str, Tensor, Tensor], None]
) -> Iterator[None]:
    """Every call of these Linears is shown: its name, what went in, what came out."""

    def hook(name: str) -> Callable[[nn.Module, tuple[Any, ...], Tensor], None]:
        return lambda _, inputs, y: take(name, inputs[0], y)

    handles = [linear.register_forward_hook(hook(name)) for name, linear in linears.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
