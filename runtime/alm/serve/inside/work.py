"""Requests answered by a few threads over one model, and those that wait for them."""

from __future__ import annotations

import asyncio
import logging
import math
import queue
import threading
import time
from collections.abc import AsyncIterator, Callable, Generator
from contextlib import aclosing, closing
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from alm.serve.refused import Refused, because

T = TypeVar("T")
FIRST_GUESS = 5.0  # seconds that an answer takes, before one was given
LONGEST_WAIT = 60  # seconds after which a refused client is told to come again, at most

log = logging.getLogger("alm.serve")


@dataclass(frozen=True)
class End(Generic[T]):
    """What a job gives behind its pieces of text."""

    value: T


@dataclass(eq=False)
class Job(Generic[T]):
    """A request in the queue, or at work; its events are read by the loop that it came from."""

    run: Callable[[], Generator[str, None, T]]
    loop: asyncio.AbstractEventLoop
    events: asyncio.Queue[str | End[T] | BaseException] = field(default_factory=asyncio.Queue)
    cancelled: threading.Event = field(default_factory=threading.Event)

    def give(self, event: str | End[T] | BaseException) -> None:
        """Hand an event to the loop, from any thread."""
        try:
            self.loop.call_soon_threadsafe(self.events.put_nowait, event)
        except RuntimeError:  # the loop is closed: nobody waits for it
            self.cancelled.set()


class Work:
    """A queue with a bound, and threads that empty it."""

    def __init__(self, rows: int, waiting: int, timeout: float) -> None:
        """`rows` at once, `waiting` beside them, each done within `timeout` seconds."""
        self.rows, self.most, self.timeout = rows, rows + waiting, timeout
        self.running = self.inside = 0
        self._seconds = FIRST_GUESS  # of an answer, as the last ones were
        self._lock = threading.Lock()
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._open = True
        self._threads = [
            threading.Thread(target=self._work, name=f"answers-{i}", daemon=True)
            for i in range(rows)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def waiting(self) -> int:
        """How many wait."""
        return max(0, self.inside - self.running)

    def submit(self, run: Callable[[], Generator[str, None, T]]) -> Job[T]:
        """Put a job into the queue.

        Raises:
            Refused: there are too many (429, with the time after which to come again), or the
                server is closing (503).
        """
        with self._lock:
            if not self._open:
                raise Refused(503, "the server is shutting down", code="shutting_down")
            if self.inside >= self.most:
                turns = (self.inside - self.rows + 1) / self.rows
                seconds = min(LONGEST_WAIT, max(1, math.ceil(self._seconds * turns)))
                raise Refused(
                    429,
                    f"as many requests are being answered ({self.rows}) and wait "
                    f"({self.most - self.rows}) as may; try again in {seconds} s",
                    code="rate_limit_exceeded",
                    headers={"Retry-After": str(seconds)},
                )
            self.inside += 1
        job: Job[T] = Job(run, asyncio.get_running_loop())
        self._jobs.put(job)
        return job

    async def events(self, job: Job[T]) -> AsyncIterator[str | End[T]]:
        """Pieces of text, then what the job gives; whoever leaves it half-way cancels the job.

        Raises:
            Refused: it failed, or took too long (504).
        """
        until = time.monotonic() + self.timeout
        try:
            while True:
                try:
                    left = max(0.0, until - time.monotonic())
                    event = await asyncio.wait_for(job.events.get(), left)
                except asyncio.TimeoutError:
                    raise Refused(
                        504, f"no whole answer within {self.timeout:g} s", code="timeout"
                    ) from None
                if isinstance(event, BaseException):
                    raise because(event)
                yield event
                if isinstance(event, End):
                    return
        finally:
            job.cancelled.set()

    async def result(self, job: Job[T]) -> T:
        """What the job gives."""
        async with aclosing(self.events(job)) as events:  # pyright: ignore[reportArgumentType]
            async for event in events:
                if isinstance(event, End):
                    return event.value
        raise AssertionError("a job ends with its value")

    def close(self) -> None:
        """Take nothing more; what is inside is done."""
        with self._lock:
            self._open = False
        for _ in self._threads:
            self._jobs.put(None)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            start = time.monotonic()
            with self._lock:
                self.running += 1
            last = None if job.cancelled.is_set() else self._answer(job)
            # Before the last event is given: who reads it and asks again at once finds the room.
            with self._lock:
                self.running -= 1
                self.inside -= 1
                if last is not None and not job.cancelled.is_set():
                    self._seconds += 0.2 * (time.monotonic() - start - self._seconds)
            if last is not None:
                job.give(last)

    def _answer(self, job: Job[T]) -> End[T] | Refused | None:
        """Give the pieces of an answer; what ends it, or None where nobody waits for it."""
        try:
            with closing(job.run()) as turn:
                while not job.cancelled.is_set():
                    try:
                        if piece := next(turn):
                            job.give(piece)
                    except StopIteration as end:
                        return End(end.value)
        except BaseException as error:
            refused = because(error)
            if refused.status >= 500:
                log.exception("a request failed")
            return refused
        return None
