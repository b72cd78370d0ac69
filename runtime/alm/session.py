"""What every backend offers: a graph runs on arrays, and some outputs may stay where they are."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from alm.host.processor import check_threads
from alm.host.turns import Turns
from alm.ports import Port, is_slot


@dataclass(frozen=True)
class BackendOptions:
    """How to open a graph."""

    provider: str = "cpu"
    threads: int = 0  # 0: the backend's own choice
    lean: bool = False  # a graph that is run now and then: little is kept between two runs
    halves: bool = False  # weights of 16 bits: on a CPU they are widened when they are needed
    profile: str = ""  # the beginning of a file's path: what every node took is written there
    turns: Turns | None = None  # runs of all graphs with the same turns wait for each other

    def __post_init__(self) -> None:
        """Refuse, with BadOption, more threads than could help: each takes memory at once."""
        check_threads(self.threads)


class Kept:
    """A tensor that stays with the backend, good as a feed of the session that gave it."""


Feed = np.ndarray | Kept


class Session(ABC):
    """One graph, opened by one backend."""

    inputs: dict[str, Port]
    outputs: dict[str, Port]
    # Whether the backend works in the memory of the arrays that it was given to hold: then whoever
    # has those arrays may read and change them between two runs.
    in_place: bool = False
    # Whether a run takes one row at a time, whatever batch the ports state.
    one_row: bool = False

    @abstractmethod
    def run(
        self, feeds: Mapping[str, Feed], keep: Mapping[str, Kept | None] | None = None
    ) -> dict[str, Any]:
        """All outputs by name: arrays, but handles for the names in `keep`.

        A name in `keep` may map to the handle that the output is to be written into, which may be
        the one that goes in: that is a cache updated in place.
        """

    @abstractmethod
    def hold(self, array: np.ndarray) -> Kept:
        """Hand an array to the backend."""

    @abstractmethod
    def fetch(self, kept: Kept) -> np.ndarray:
        """The array behind a handle; it may share memory with it."""


@dataclass
class Rows(Kept):
    """One handle a row."""

    rows: list[Kept]


class RowByRow(Session):
    """A graph whose batch is fixed to 1, run once a row: what a batch would give, in its time."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self.inputs, self.outputs = session.inputs, session.outputs
        self.in_place = session.in_place

    def run(
        self, feeds: Mapping[str, Feed], keep: Mapping[str, Kept | None] | None = None
    ) -> dict[str, Any]:
        """See `Session.run`."""
        keep = keep or {}
        rows = max(
            len(feed.rows) if isinstance(feed, Rows) else len(_array(feed))
            for name, feed in feeds.items()
            if not is_slot(name)
        )

        def row(feed: Feed | None, i: int) -> Any:
            if feed is None:
                return None
            return feed.rows[i] if isinstance(feed, Rows) else _array(feed)[i : i + 1]

        results = [
            self._session.run(
                {n: feed if is_slot(n) else row(feed, i) for n, feed in feeds.items()},
                {name: row(place, i) for name, place in keep.items()},
            )
            for i in range(rows)
        ]
        return {
            name: Rows([r[name] for r in results])
            if name in keep
            else np.concatenate([r[name] for r in results])
            for name in self.outputs
        }

    def hold(self, array: np.ndarray) -> Rows:
        """See `Session.hold`."""
        return Rows([self._session.hold(array[i : i + 1]) for i in range(len(array))])

    def fetch(self, kept: Kept) -> np.ndarray:
        """See `Session.fetch`."""
        assert isinstance(kept, Rows)
        return np.concatenate([self._session.fetch(row) for row in kept.rows])


class OneRowChunks(Session):
    """A decoder that takes several rows at once, unless several tokens of them meet a past.

    ONNX Runtime's GroupQueryAttention is made so. Such a chunk is run row by row, each in its own
    rows of the caches.
    """

    def __init__(self, session: Session) -> None:
        self._session, self._rows = session, RowByRow(session)
        self.inputs, self.outputs = session.inputs, session.outputs
        self.in_place = session.in_place

    def run(
        self, feeds: Mapping[str, Feed], keep: Mapping[str, Kept | None] | None = None
    ) -> dict[str, Any]:
        """See `Session.run`."""
        keep = keep or {}
        past = _array(feeds["past_lengths"])
        if len(past) == 1 or _array(feeds["inputs_embeds"]).shape[1] == 1 or not past.any():
            return self._session.run(feeds, keep)
        apart = {n: self._apart(f) if isinstance(f, Kept) else f for n, f in feeds.items()}
        places = {n: self._apart(p) if p and self.in_place else None for n, p in keep.items()}
        outputs = self._rows.run(apart, places)
        if self.in_place:  # written where the whole lies
            return outputs | {
                name: place or self._session.hold(self._rows.fetch(outputs[name]))
                for name, place in keep.items()
            }
        return outputs | {
            name: self._session.hold(self._rows.fetch(outputs[name])) for name in keep
        }

    def _apart(self, kept: Kept) -> Rows:
        return self._rows.hold(self._session.fetch(kept))

    def hold(self, array: np.ndarray) -> Kept:
        """See `Session.hold`."""
        return self._session.hold(array)

    def fetch(self, kept: Kept) -> np.ndarray:
        """See `Session.fetch`."""
        return self._session.fetch(kept)


class InTurn(Session):
    """A graph that is run while no other of the same turns is."""

    def __init__(self, session: Session, turns: Turns) -> None:
        self._session, self._turns = session, turns
        self.inputs, self.outputs = session.inputs, session.outputs
        self.in_place, self.one_row = session.in_place, session.one_row

    def run(
        self, feeds: Mapping[str, Feed], keep: Mapping[str, Kept | None] | None = None
    ) -> dict[str, Any]:
        """See `Session.run`."""
        with self._turns:
            return self._session.run(feeds, keep)

    def hold(self, array: np.ndarray) -> Kept:
        """See `Session.hold`."""
        return self._session.hold(array)

    def fetch(self, kept: Kept) -> np.ndarray:
        """See `Session.fetch`."""
        return self._session.fetch(kept)


class PieceByPiece(Session):
    """A graph of which nothing crosses from one piece of an axis to the next, run piece by piece.

    So an hour of sound takes the memory of a few seconds, and a clip of a few seconds no more than
    its own length. A row whose own length has ended is left out of the pieces that follow; what
    the others make then stands beside zeros.
    """

    def __init__(self, session: Session, inputs: Mapping[str, Port], axis: str, most: int) -> None:
        """`inputs` are the part's, which say what counts `axis`; a piece is at most `most` long."""
        self._session, self._most = session, max(most, 1)
        self.inputs, self.outputs = session.inputs, session.outputs
        self.in_place = session.in_place
        self._cut = {n: port.axes.index(axis) for n, port in inputs.items() if axis in port.axes}
        self._counts = [name for name, port in inputs.items() if port.counts == axis]

    def run(
        self, feeds: Mapping[str, Feed], keep: Mapping[str, Kept | None] | None = None
    ) -> dict[str, Any]:
        """See `Session.run`.

        Outputs of the pieces follow each other along the second axis; those with one axis, counts
        of what the pieces made, add up. Nothing can be kept.
        """
        arrays = {name: _array(feed) for name, feed in feeds.items()}
        whole = max(arrays[name].shape[axis] for name, axis in self._cut.items())
        if whole <= self._most:
            return self._session.run(feeds, keep)
        outputs = [self._piece(arrays, start) for start in range(0, whole, self._most)]
        return {name: _follow([output[name] for output in outputs]) for name in outputs[0]}

    def _piece(self, arrays: Mapping[str, np.ndarray], start: int) -> dict[str, np.ndarray]:
        """The outputs of one piece of all rows; of those that have ended, zeros."""
        piece = dict(arrays)
        there = np.ones(len(arrays[next(iter(self._cut))]), bool)
        for name, axis in self._cut.items():
            place = (slice(None),) * axis + (slice(start, start + self._most),)
            piece[name] = np.ascontiguousarray(arrays[name][place])
        for name in self._counts:
            piece[name] = (arrays[name] - start).clip(0, self._most)
            there &= piece[name] > 0
        if there.all():
            return self._session.run(piece)
        full: dict[str, np.ndarray] = {}
        some_rows = {n: a if is_slot(n) else a[there] for n, a in piece.items()}
        for name, some in self._session.run(some_rows).items():
            full[name] = np.zeros((len(there), *some.shape[1:]), some.dtype)
            full[name][there] = some
        return full

    def hold(self, array: np.ndarray) -> Kept:
        """See `Session.hold`."""
        return self._session.hold(array)

    def fetch(self, kept: Kept) -> np.ndarray:
        """See `Session.fetch`."""
        return self._session.fetch(kept)


def _follow(outputs: list[np.ndarray]) -> np.ndarray:
    return np.concatenate(outputs, axis=1) if outputs[0].ndim > 1 else np.sum(outputs, axis=0)


def _array(feed: Feed) -> np.ndarray:
    assert isinstance(feed, np.ndarray)
    return feed
