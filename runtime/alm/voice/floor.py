"""The floor of noise around frames of sound."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import deque

FRAME = 0.03  # seconds
MEMORY = 3.0  # seconds before a frame in which the floor is looked for
AHEAD = 0.3  # seconds behind a frame that are waited for
FIRST = 1.0  # seconds that are waited for at the very beginning, where nothing came before
TENTH = 0.1  # of the frames may be below the floor: one lost packet is no quiet room
LOWEST = -80.0  # dB of full scale; a floor is never lower, so that dither is no speech


class Floor:
    """The floor of noise around each frame, in the order of the frames, a little behind them."""

    def __init__(self) -> None:
        self._memory, self._ahead = round(MEMORY / FRAME), round(AHEAD / FRAME)
        self._first = round(FIRST / FRAME)
        self._waiting: deque[float] = deque()  # levels that have no floor yet
        self._around: deque[float] = deque()  # levels before and ahead
        self._sorted: list[float] = []
        self._pushed = 0

    def push(self, level: float) -> list[tuple[float, float]]:
        """(level, floor) of frames that can be judged now that `level` came."""
        self._pushed += 1
        self._waiting.append(level)
        self._around.append(level)
        insort(self._sorted, level)
        if len(self._around) > self._memory + self._ahead:
            del self._sorted[bisect_left(self._sorted, self._around.popleft())]
        if self._pushed < self._first:
            return []
        judged: list[tuple[float, float]] = []
        while len(self._waiting) > self._ahead:
            judged.append((self._waiting.popleft(), self.level))
        return judged

    def rest(self) -> list[tuple[float, float]]:
        """The frames that are left at the end of the stream."""
        floor = self.level
        judged = [(level, floor) for level in self._waiting]
        self._waiting.clear()
        return judged

    @property
    def level(self) -> float:
        """The floor now, in dB of full scale."""
        if not self._sorted:
            return LOWEST
        return max(LOWEST, self._sorted[int(TENTH * len(self._sorted))])
