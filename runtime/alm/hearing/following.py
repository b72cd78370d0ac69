"""A source of sound followed as it comes: it never waits for the model, unless it can."""

from __future__ import annotations

import threading
import time
from collections.abc import Generator, Iterable, Iterator

import numpy as np

from alm.hearing.events import Event
from alm.hearing.listener import Listener
from alm.hearing.tasks import done


def paced(chunks: Iterable[np.ndarray], rate: int, pace: float) -> Iterator[np.ndarray]:
    """Chunks when they would be over, were they spoken `pace` times as fast from now on."""
    start, samples = time.monotonic(), 0
    for chunk in chunks:
        samples += len(chunk)
        time.sleep(max(0.0, start + samples / rate / pace - time.monotonic()))
        yield chunk


class Follower:
    """One thread reads the source, and the one that takes the events asks the model."""

    def __init__(self, listener: Listener, chunks: Iterable[np.ndarray], waits: bool) -> None:
        """`waits`: the source can wait when too much speech is behind, as a file or a pipe can.

        Another one, such as a microphone, is left then: what was heard is written down, and what
        is wrong is raised behind it.
        """
        self.listener = listener
        self._chunks, self._waits = chunks, waits
        self._error: BaseException | None = None
        self._new: list[Event] = []  # of the thread that reads
        self._thread = threading.Thread(target=self._read, name="listening", daemon=True)
        self._stopped = False

    def events(self) -> Generator[Event, None, None]:
        """What is said, to the end of the source.

        After an interrupt it may be called again, and goes on where it was.

        Raises:
            AlmError: what is wrong with the source, behind the last event; see also
                `Model.generate`.
        """
        listener = self.listener
        if not self._thread.ident:
            self._thread.start()
        while True:
            with listener.changed:
                new, self._new = self._new, []
                ended, task = listener.ended, listener.take()
                if not new and not task and not ended:
                    listener.changed.wait(0.2)  # an interrupt is seen there
            yield from new
            if task:
                if event := done(listener.run(task)):
                    yield event
            elif ended and not new:
                break
        if self._error:
            error, self._error = self._error, None
            raise error

    def stop(self) -> None:
        """End the sound here; `events` gives what is left."""
        with self.listener.changed:
            self._stopped = True
            self._new += self.listener.end()

    def _read(self) -> None:
        listener = self.listener
        try:
            for chunk in self._chunks:
                with listener.changed:
                    while self._waits and not self._stopped and self._full(len(chunk)):
                        listener.changed.wait()
                    if self._stopped:
                        return
                    self._new += listener.hear(chunk)
        except BaseException as error:  # told by the thread that takes the events
            self._error = error
        finally:
            with listener.changed:
                self._new += listener.end()

    def _full(self, samples: int) -> bool:
        listener = self.listener
        return listener.behind + samples / listener.rate > listener.waiting
