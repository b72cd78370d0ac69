"""Sound of a stream that is still needed, in one array that is reused."""

from __future__ import annotations

import numpy as np

FIRST = 2**15  # samples of room at the beginning


class Sound:
    """Samples [start, end) of a stream, float32; those before `start` were let go."""

    def __init__(self) -> None:
        self.start = self.end = 0
        self._held = np.zeros(FIRST, np.float32)  # samples from `start` on

    def append(self, pcm: np.ndarray) -> None:
        """Hold float32 [n] more samples."""
        filled, more = self.end - self.start, len(pcm)
        if filled + more > len(self._held):
            wider = np.zeros(max(2 * len(self._held), filled + more), np.float32)
            wider[:filled] = self._held[:filled]
            self._held = wider
        self._held[filled : filled + more] = pcm
        self.end += more

    def drop(self, before: int) -> None:
        """Let the samples before this one go, and the room that they took."""
        gone = min(max(before, self.start), self.end) - self.start
        if not gone:
            return
        left = self._held[gone : self.end - self.start]
        self.start += gone
        if len(left) + FIRST < len(self._held) // 4:
            left = left.copy()
            self._held = np.zeros(max(FIRST, 2 * len(left)), np.float32)
        self._held[: len(left)] = left.copy()

    def between(self, start: int, end: int) -> np.ndarray:
        """A copy of the samples [start, end), which are held."""
        return self._held[start - self.start : end - self.start].copy()
