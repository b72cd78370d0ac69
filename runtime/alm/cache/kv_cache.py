"""The decoder's KV cache: its rows are moved where they lie, and only what differs is copied."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from alm.ports import CAPACITY_STEP, Port
from alm.session import Kept, Session

SPARE = -1  # a row beside those of the cache


class Move(NamedTuple):
    """Positions `first` to `last` of row `source` are copied to row `target`."""

    target: int
    source: int
    first: int
    last: int


class Cache:
    """What the decoder keeps of the past: `kept` are its tensors as feeds, by the input's name."""

    def __init__(self, session: Session, ports: Mapping[str, Port]) -> None:
        self.session, self.ports = session, ports
        self.fixed = any("capacity" in port.axes for port in ports.values())
        self.kept: dict[str, Kept] = {}
        # Where the backend works in our arrays: those, with all rows that there ever were.
        self._arrays: dict[str, np.ndarray] = {}
        self._same = np.zeros((0, 0), np.int64)  # rows i and j are equal in so many positions

    def start(self, rows: int, most: int, begun: Mapping[str, np.ndarray] | None = None) -> None:
        """Empty, for `rows` sequences of at most `most` positions.

        Or with what `begun` holds [1, ...] of each, by the input's name.
        """
        self.kept, self._arrays = {}, {}  # what was there goes before there is memory for two
        capacity = -(-most // CAPACITY_STEP) * CAPACITY_STEP
        sizes = {"batch": rows, "past": 0, "capacity": capacity}
        arrays = {
            # Where the graph's batch is 1, rows are run one by one: there are `rows` all the same.
            # Zeros, since what lies beyond a row's length is weighed with 0, and 0 * NaN is NaN.
            name: np.zeros((rows, *port.shape(sizes)[1:]), port.dtype)
            for name, port in self.ports.items()
        }
        for name, first in (begun or {}).items():
            axis = self._axis(name)
            if self.fixed:
                places, copied = np.moveaxis(arrays[name], axis, 1), np.moveaxis(first, axis, 1)
                places[:, : copied.shape[1]] = copied
            else:
                arrays[name] = np.repeat(first, rows, 0)
        self._arrays = arrays if self.shares else {}
        self._same = np.zeros((rows, rows), np.int64)
        self.kept = {name: self.session.hold(array) for name, array in arrays.items()}

    def grow(self, most: int, used: int) -> None:
        """Make room for `most` positions; the first `used` of every row stay what they are."""
        capacity = -(-most // CAPACITY_STEP) * CAPACITY_STEP
        for name, port in self.ports.items() if self.fixed else ():
            old, rows = self._array(name), len(self._same)
            axis = port.axes.index("capacity")
            if old.shape[axis] >= capacity:
                continue
            new = np.zeros(
                (rows, *port.shape({"batch": rows, "capacity": capacity})[1:]), old.dtype
            )
            np.moveaxis(new, axis, 1)[:, :used] = np.moveaxis(old, axis, 1)[:rows, :used]
            if self._arrays:
                self._arrays[name] = new
            self.kept[name] = self.session.hold(new)

    def add(self, other: Cache, used: int) -> None:
        """One row more: the first of `other`, of which `used` positions are valid.

        Only where both lie in arrays of ours (`shares`).
        """
        rows, capacity = len(self._same), other.capacity
        if not rows:
            self.start(1, capacity)
        else:
            self.grow(capacity, self.capacity)
            if rows == self._room():
                self._widen(np.arange(2 * rows) % rows, self.capacity)
            self._same = np.zeros((rows + 1, rows + 1), np.int64)
        self.copy(other, 0, rows, used)
        self._hold(rows + 1)

    def copy(self, other: Cache, source: int, target: int, used: int) -> None:
        """Row `target` becomes row `source` of `other`, of which `used` positions are valid."""
        for name, array in self._arrays.items():
            axis = self._axis(name)
            ours, theirs = np.moveaxis(array, axis, 1), np.moveaxis(other._arrays[name], axis, 1)
            ours[target, :used] = theirs[source, :used]

    def clear(self) -> None:
        """No rows, and no memory for any."""
        self.kept, self._arrays, self._same = {}, {}, np.zeros((0, 0), np.int64)

    @property
    def bytes(self) -> int:
        """Of all rows, where the backend has them or where they lie."""
        return sum(self._array(name).nbytes for name in self.kept)

    @property
    def shares(self) -> bool:
        """Whether its rows lie in arrays of ours, of a fixed capacity."""
        return self.fixed and self.session.in_place

    @property
    def capacity(self) -> int:
        """Positions of a row, of a cache that `shares` and was started."""
        name, array = next(iter(self._arrays.items()))
        return array.shape[self._axis(name)]

    def _hold(self, rows: int) -> None:
        """Only so many rows of the arrays are those of the cache."""
        self.kept = {name: self.session.hold(array[:rows]) for name, array in self._arrays.items()}

    def first(self, length: int) -> dict[str, np.ndarray]:
        """A copy of the first row's first `length` positions [1, ...], by the input's name."""
        return {
            name: self._array(name)[:1].take(range(length), self._axis(name)) for name in self.ports
        }

    def _array(self, name: str) -> np.ndarray:
        """Where a tensor lies, or a copy where the backend has it."""
        array = self._arrays.get(name)
        return self.session.fetch(self.kept[name]) if array is None else array

    def _axis(self, name: str) -> int:
        """The axis of positions."""
        return self.ports[name].axes.index("capacity" if self.fixed else "past")

    def cut(self, length: int) -> None:
        """Forget what lies past `length` positions; a fixed capacity is written over."""
        for name, port in () if self.fixed else self.ports.items():
            past = np.moveaxis(self.session.fetch(self.kept[name]), port.axes.index("past"), 0)
            kept = np.ascontiguousarray(np.moveaxis(past[:length], 0, port.axes.index("past")))
            self.kept[name] = self.session.hold(kept)

    def slide(self, gone: int, used: int) -> None:
        """Forget the first `gone` of `used` positions: the others move to the front."""
        for name in self.ports:
            axis = self._axis(name)
            places = np.moveaxis(self._array(name), axis, 0)
            if not self.fixed:
                left = np.ascontiguousarray(np.moveaxis(places[gone:], 0, axis))
                self.kept[name] = self.session.hold(left)
                continue
            places = places if self._arrays else places.copy()
            places[: used - gone] = places[gone:used]
            if not self._arrays:
                self.kept[name] = self.session.hold(
                    np.ascontiguousarray(np.moveaxis(places, 0, axis))
                )

    def reorder(self, rows: np.ndarray, lengths: np.ndarray) -> None:
        """Row i becomes a copy of what was row rows[i].

        Args:
            rows: int64; there may be more or fewer of them than there were.
            lengths: the valid positions of each row as it was.
        """
        if not self._arrays:
            self.kept = {
                name: self.session.hold(self.session.fetch(kept)[rows])
                for name, kept in self.kept.items()
            }
            return
        np.fill_diagonal(self._same, lengths)
        if len(rows) > self._room():
            self._widen(rows, int(lengths.max()))
        else:
            plan = self._plan(rows, lengths)
            for name, array in self._arrays.items():
                _carry_out(plan, np.moveaxis(array, self.ports[name].axes.index("capacity"), 1))
        # Beams of one prompt differ in their last tokens only, and remember from where on.
        self._same = self._same[np.ix_(rows, rows)]
        if len(rows) != len(lengths):
            self._hold(len(rows))

    def _room(self) -> int:
        return len(next(iter(self._arrays.values())))

    def _widen(self, rows: np.ndarray, longest: int) -> None:
        for name, old in self._arrays.items():
            new = np.zeros((len(rows), *old.shape[1:]), old.dtype)
            axis = self.ports[name].axes.index("capacity")
            new_at, old_at = np.moveaxis(new, axis, 1), np.moveaxis(old, axis, 1)
            for target, source in enumerate(rows):
                new_at[target, :longest] = old_at[source, :longest]
            self._arrays[name] = new

    def _plan(self, rows: np.ndarray, lengths: np.ndarray) -> list[Move]:
        """Copies that leave every row what it shall be, no source overwritten before it is read."""
        first = {
            target: int(self._same[target, source]) if target < len(lengths) else 0
            for target, source in enumerate(rows)
        }
        plan: list[Move] = []
        saved = SPARE  # the row that lies in the spare one
        for target, source in order([int(row) for row in rows]):
            if target == SPARE:
                saved = source
                start = min(first[reader] for reader, read in enumerate(rows) if read == source)
                plan.append(Move(SPARE, source, start, int(lengths[source])))
                continue
            last = int(lengths[saved if source == SPARE else source])
            plan.append(Move(target, source, first[target], last))
        return plan


def order(rows: Sequence[int]) -> Iterator[tuple[int, int]]:
    """(target, source) of every i that becomes row rows[i], in an order in which it can be done.

    Where rows change places in a ring, one of them goes to the row SPARE first.
    """
    pending = {target: source for target, source in enumerate(rows) if target != source}
    readers = dict.fromkeys(pending, 0)
    for source in pending.values():
        readers[source] = readers.get(source, 0) + 1
    free = [target for target in pending if not readers[target]]
    while pending:
        if not free:  # only rings are left
            start = next(iter(pending))
            yield SPARE, start
            target = start
            while pending[target] != start:
                yield target, pending[target]
                target = pending.pop(target)
            del pending[target]
            yield target, SPARE
            continue
        target = free.pop()
        source = pending.pop(target)
        yield target, source
        readers[source] -= 1
        if source in pending and not readers[source]:
            free.append(source)


def _carry_out(plan: Sequence[Move], rows: np.ndarray) -> None:
    """Do it to rows [rows, capacity, ...], which may be a view."""
    spare, start = rows[:0], 0
    for target, source, first, last in plan:
        if target == SPARE:
            spare, start = rows[source, first:last].copy(), first
        elif source == SPARE:
            rows[target, first:last] = spare[first - start : last - start]
        else:
            rows[target, first:last] = rows[source, first:last]
