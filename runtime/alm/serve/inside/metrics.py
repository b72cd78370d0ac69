"""What a server counts, as Prometheus reads it (text format 0.0.4)."""

from __future__ import annotations

import resource
import sys
import threading
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator

from alm.generation.answers import Answer
from alm.serve.inside.work import Work

CONTENT = "text/plain; version=0.0.4; charset=utf-8"
# Seconds: from a cached clip on a fast machine to a long recording on a slow one.
BUCKETS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)


class Histogram:
    """Counts of values up to each bound, their number and their sum."""

    def __init__(self) -> None:
        self.counts, self.total = [0] * (len(BUCKETS) + 1), 0.0

    def add(self, value: float) -> None:
        """Count a value."""
        self.counts[bisect_left(BUCKETS, value)] += 1
        self.total += value

    def lines(self, name: str) -> Iterator[str]:
        """The samples of its series."""
        below = 0
        for bound, count in zip((*map(str, BUCKETS), "+Inf"), self.counts, strict=True):
            below += count
            yield f'{name}_bucket{{le="{bound}"}} {below}'
        yield f"{name}_sum {self.total:.6f}"
        yield f"{name}_count {below}"


class Metrics:
    """Counters of one server; any thread may add."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._requests: dict[tuple[str, int], int] = defaultdict(int)
        self._stages: dict[str, float] = defaultdict(float)
        self._seconds, self._first = Histogram(), Histogram()
        self._audio = 0.0
        self._prompt = self._cached = self._said = 0

    def request(self, endpoint: str, status: int, seconds: float) -> None:
        """Count a request that was answered, with whatever status."""
        with self._lock:
            self._requests[endpoint, status] += 1
            if status == 200:
                self._seconds.add(seconds)

    def answer(self, answer: Answer) -> None:
        """Count what an answer took."""
        with self._lock:
            self._audio += answer.audio_seconds
            self._prompt += answer.prompt_tokens
            self._cached += answer.cached_tokens + answer.prefix_tokens
            self._said += len(answer.token_ids)
            self._first.add(answer.timings_ms.get("first_token", 0.0) / 1e3)
            for stage, ms in answer.timings_ms.items():
                if stage not in ("load", "first_token", "per_token", "total"):
                    self._stages[stage] += ms / 1e3

    def text(self, work: Work) -> str:
        """All of it."""
        with self._lock:
            return "\n".join(self._lines(work)) + "\n"

    def _lines(self, work: Work) -> Iterator[str]:
        yield from _head("alm_requests_total", "counter", "Requests, by endpoint and HTTP status.")
        for (endpoint, status), count in sorted(self._requests.items()):
            yield f'alm_requests_total{{endpoint="{endpoint}",status="{status}"}} {count}'
        yield from _head("alm_request_seconds", "histogram", "From a request to its last word.")
        yield from self._seconds.lines("alm_request_seconds")
        yield from _head("alm_first_token_seconds", "histogram", "From work's start to a token.")
        yield from self._first.lines("alm_first_token_seconds")
        yield from _head("alm_stage_seconds_total", "counter", "Where the time went.")
        for stage, seconds in sorted(self._stages.items()):
            yield f'alm_stage_seconds_total{{stage="{stage}"}} {seconds:.6f}'
        for name, kind, what, value in (
            ("alm_audio_seconds_total", "counter", "Sound that was heard.", f"{self._audio:.3f}"),
            ("alm_prompt_tokens_total", "counter", "Tokens of prompts.", self._prompt),
            ("alm_cached_tokens_total", "counter", "Of those, not computed again.", self._cached),
            ("alm_generated_tokens_total", "counter", "Tokens of answers.", self._said),
            ("alm_running", "gauge", "Requests being answered.", work.running),
            ("alm_waiting", "gauge", "Requests that wait.", work.waiting),
            ("alm_peak_memory_bytes", "gauge", "The most memory the process had.", _peak()),
        ):
            yield from _head(name, kind, what)
            yield f"{name} {value}"


def _head(name: str, kind: str, what: str) -> Iterator[str]:
    yield f"# HELP {name} {what}"
    yield f"# TYPE {name} {kind}"


def _peak() -> int:
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
