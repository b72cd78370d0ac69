"""One run of a graph at a time, whoever asks, in the order in which they came."""

from __future__ import annotations

import threading
from types import TracebackType


class Turns:
    """A lock that is given to those who wait in the order in which they came.

    Without an order whoever lets go of a lock gets it again before a waiting thread has woken: an
    answer that runs one graph after the other would keep all others from their steps.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._next = self._now = 0

    def __enter__(self) -> None:
        with self._changed:
            mine = self._next
            self._next += 1
            while mine != self._now:
                self._changed.wait()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._changed:
            self._now += 1
            self._changed.notify_all()
