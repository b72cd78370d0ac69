"""Whether drafts pay on this machine, by the clock alone: how long they are, and when to rest."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from alm.ports import MOST_FROM_END

LONGEST = MOST_FROM_END - 1  # tokens of a draft
FIRST = 4  # of the first one
WATCHED = 6  # calls with a draft after which it is decided anew
REST, MOST_REST = 16, 512  # steps without drafts where they lose, twice as many each time
FRESH = 0.2  # of a plain step's time, the share of the latest one


@dataclass
class Gain:
    """What plain steps take, and what steps with drafts take and give."""

    clock: Callable[[], float] = time.perf_counter
    length: int = FIRST
    plain: float = 0.0  # seconds of a plain step; 0: none was measured
    proposed: int = 0  # tokens, in all
    accepted: int = 0
    _seconds: float = 0.0  # of the calls that are watched
    _tokens: int = 0  # that these gave
    _calls: int = 0
    _warm: bool = False  # the first step of all is slower than any other
    _resting: int = 0
    _rest: int = REST

    def wanted(self) -> int:
        """How long the next draft may be; 0: a plain step."""
        if not self.plain:
            return 0
        if self._resting:
            self._resting -= 1
            return 0
        return self.length

    def stepped(self, seconds: float) -> None:
        """A plain step took so long."""
        if not self._warm:
            self._warm = True
        elif not self.plain:
            self.plain = seconds
        else:
            self.plain += FRESH * (seconds - self.plain)

    def drafted(self, seconds: float, proposed: int, accepted: int) -> None:
        """A draft of so many tokens and its call took so long, and so many were right."""
        self.proposed += proposed
        self.accepted += accepted
        full = accepted == proposed
        self.length = min(2 * proposed, LONGEST) if full else max(1, accepted + 1)
        self._seconds, self._tokens = self._seconds + seconds, self._tokens + accepted + 1
        self._calls += 1
        if self._calls < WATCHED:
            return
        if self._seconds > self._tokens * self.plain:
            self._resting, self._rest = self._rest, min(2 * self._rest, MOST_REST)
            self.length = FIRST
        else:
            self._rest = REST
        self._seconds, self._tokens, self._calls = 0.0, 0, 0
