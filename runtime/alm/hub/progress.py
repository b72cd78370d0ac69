"""How far a download is, in lines on stderr; a terminal has huggingface_hub's bars besides."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

EVERY = 10.0  # seconds between lines


def tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def megabytes(count: int) -> str:
    """Bytes for people."""
    return f"{count / 1e6:,.1f} MB" if count >= 100_000 else f"{count:,} bytes"


class Progress:
    """Counts bytes of a download of `total` and tells them now and then."""

    def __init__(
        self,
        total: int,
        say: Callable[[str], None] = tell,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._total, self._say, self._clock = total, say, clock
        self._came = self._kept = 0
        self._began = self._said = clock()

    def kept(self, count: int) -> None:
        """So many bytes of it were here before."""
        self._kept += count

    def add(self, count: int) -> None:
        """So many bytes came."""
        self._came += count
        now = self._clock()
        if now - self._said >= EVERY and not sys.stderr.isatty():
            self._said = now
            done, took = self._kept + self._came, max(now - self._began, 1e-9)
            left = max(self._total - done, 0) / max(self._came / took, 1e-9)
            self._say(
                f"{megabytes(done)} of {megabytes(self._total)}, "
                f"{self._came / took / 1e6:.1f} MB/s, {int(left // 60)}:{int(left % 60):02d} left"
            )
