"""Where the time of a run goes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
OnStage = Callable[[str, float], None]  # a stage's name, and since when (time.perf_counter) it ran


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


# Stages that an answer's timings leave out: beside the others they are nothing.
FINER = ("prompt", "windows", "recall", "steps", "choose", "detokenise")


class Times(Stages):
    """Where the time of one call goes, from when it is made."""

    def __init__(self) -> None:
        super().__init__()
        self.began = time.perf_counter()
        self.first_ms = 0.0  # from the beginning to the first token (TTFT)
        self.step_ms: list[float] = []  # of each step of the decoder, moving cache rows included

    def chose(self, decoder_ms: float | None, since: float) -> None:
        """Count a step of the search, which ran since `since` and was this long in the decoder."""
        now = time.perf_counter()
        self.first_ms = self.first_ms or (now - self.began) * 1e3
        if decoder_ms is not None:
            self.step_ms.append(decoder_ms)
            self.add_ms("steps", decoder_ms)
        self.add_ms("choose", (now - since) * 1e3 - (decoder_ms or 0.0))

    def of_answer(self, load_ms: float) -> dict[str, float]:
        """Milliseconds by stage since the beginning; the finer ones are for `alm bench`."""
        total = (time.perf_counter() - self.began) * 1e3
        ms = {"load": load_ms} | {n: t for n, t in self.ms.items() if n not in FINER}
        ms["first_token"] = self.first_ms
        ms["per_token"] = sum(self.step_ms) / len(self.step_ms) if self.step_ms else 0.0
        ms["total"] = total
        return {stage: round(value, 3) for stage, value in ms.items()}


def ahead(
    items: Sequence[T], prepare: Callable[[T], None], side_by_side: bool, times: Stages
) -> Iterator[T]:
    """Each item once it is prepared; side by side, the next is prepared while it is worked on."""
    if not side_by_side or len(items) < 2:
        for item in items:
            prepare(item)
            yield item
        return

    def timed(item: T) -> float:
        start = time.perf_counter()
        prepare(item)
        return time.perf_counter() - start

    with ThreadPoolExecutor(1) as pool:
        pending = pool.submit(timed, items[0])
        for i, item in enumerate(items):
            start = time.perf_counter()
            seconds = pending.result()
            times.overlap_ms += (seconds - (time.perf_counter() - start)) * 1e3
            if i + 1 < len(items):
                pending = pool.submit(timed, items[i + 1])
            yield item
