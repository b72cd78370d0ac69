"""Where the time of a run goes."""

from __future__ import annotations

import time
from collections.abc import Callable

Told = Callable[[str, float], None]  # a stage's name, and since when (time.perf_counter) it ran


class Stages:
    """Milliseconds by stage, added up."""

    def __init__(self) -> None:
        self.ms: dict[str, float] = {}
        # Counted twice, since stages ran side by side; below 0 where that cost more than it saved.
        self.overlap_ms = 0.0

    def add(self, stage: str, since: float) -> None:
        """Count the time since `since` (time.perf_counter) to a stage."""
        self.add_ms(stage, (time.perf_counter() - since) * 1e3)

    def add_ms(self, stage: str, ms: float) -> None:
        """Count so many milliseconds to a stage."""
        self.ms[stage] = self.ms.get(stage, 0.0) + ms
