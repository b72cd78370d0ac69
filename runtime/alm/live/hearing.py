"""Samples in pieces of any size to embeddings of steps, as those of the whole sound would be."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from alm.facts import LiveFacts

MOST_STEPS = 32  # at once: 2.6 s of 80 ms each
Run = Callable[[np.ndarray], np.ndarray]  # samples [steps * n] -> embeddings [steps, hidden]


class Hearing:
    """One stream of sound, the silences around it among it.

    A step's spectrogram sees `ahead_samples` into the next: what the parts are given begins so many
    samples into the silence on the left, and is whole steps from there on.
    """

    def __init__(self, facts: LiveFacts, run: Run) -> None:
        self.facts, self._run = facts, run
        self.samples = 0  # heard so far, without the silences
        self._buffer = np.zeros(MOST_STEPS * facts.step_samples, np.float32)
        self._filled = 0
        self._begun = False

    def feed(self, pcm: np.ndarray) -> Iterator[np.ndarray]:
        """Embeddings float32 [n, hidden] that samples [m] complete; m is any number.

        It must be run to its end: what is not taken from it is not heard.
        """
        if not self._begun:
            self._begun = True
            silence = self.facts.left * self.facts.step_samples - self.facts.ahead_samples
            yield from self._taken(_zeros(silence))
        self.samples += len(pcm)
        yield from self._taken(iter([pcm]))

    def end(self, silence: int) -> Iterator[np.ndarray]:
        """Embeddings up to the end of so many samples of silence behind the sound.

        Behind them there are those that the last step looks ahead to.
        """
        yield from self.feed(np.zeros(0, np.float32))
        yield from self._taken(_zeros(silence + self.facts.ahead_samples))

    def _taken(self, pieces: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
        step, room = self.facts.step_samples, len(self._buffer)
        for piece in pieces:
            at = 0
            while at < len(piece):
                some = piece[at : at + room - self._filled]
                self._buffer[self._filled : self._filled + len(some)] = some
                self._filled += len(some)
                at += len(some)
                whole = self._filled - self._filled % step
                if whole:
                    made = self._run(self._buffer[:whole])
                    rest = self._filled - whole  # less than a step
                    self._buffer[:rest] = self._buffer[whole : self._filled]
                    self._filled = rest
                    yield made


def steps(facts: LiveFacts, samples: int, delay: int) -> int:
    """Steps of so many samples and the silences around them."""
    whole = samples + behind(facts, samples, delay)
    return facts.left + whole // facts.step_samples


def behind(facts: LiveFacts, samples: int, delay: int) -> int:
    """Samples of silence behind so many of sound."""
    return -samples % facts.step_samples + (delay + facts.right) * facts.step_samples


def _zeros(count: int) -> Iterator[np.ndarray]:
    """So many, a second at a time."""
    for at in range(0, count, 16_000):
        yield np.zeros(min(16_000, count - at), np.float32)
