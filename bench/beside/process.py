"""Processes that are watched from outside: their time and memory, on a machine that is quiet."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

POLL = 0.1  # seconds between two looks at the memory
QUIET = 0.1  # share of the processors that others may use without harm


@dataclass(frozen=True)
class Ended:
    """How a process ended."""

    status: int
    seconds: float
    peak_mb: float  # largest resident set of it or of a child, mapped files included
    anon_mb: float  # largest resident memory of all together that is no file
    others: float  # share of all processors that others used meanwhile
    said: str

    @property
    def last(self) -> str:
        """The last line that it wrote; most errors are there."""
        lines = self.said.strip().splitlines() or [f"status {self.status}, and nothing said"]
        return lines[-1][-400:]

    @property
    def cost(self) -> dict[str, float]:
        """What the making of a file is told to have taken."""
        memory = {"peak_mb": self.peak_mb, "anon_mb": self.anon_mb}
        return {"seconds": self.seconds, "others": self.others} | memory


def watched(
    words: Sequence[str], settings: Mapping[str, str], timeout: float, folder: Path
) -> Ended:
    """Run a process with these environment variables besides the own ones, and watch its memory.

    The peak is the kernel's, which counts from the parent's size: keep the parent small.
    """
    with tempfile.TemporaryFile("w+") as log:
        start, before = time.perf_counter(), _ticks()
        process = subprocess.Popen(
            words,
            env={**os.environ, **settings},
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        anon, late = 0.0, False
        try:
            while not (ended := os.wait4(process.pid, os.WNOHANG))[0]:
                anon = max(anon, sum(_anonymous(pid) for pid in _family(process.pid)))
                if not late and time.perf_counter() - start > timeout:
                    late = True
                    os.killpg(process.pid, signal.SIGKILL)
                time.sleep(POLL)
        except BaseException:  # whoever stops us means it too, which has a session of its own
            os.killpg(process.pid, signal.SIGKILL)
            raise
        seconds, after, used = time.perf_counter() - start, _ticks(), ended[2]
        own = (used.ru_utime + used.ru_stime) * os.sysconf("SC_CLK_TCK")
        others = max(0.0, after[0] - before[0] - own) / max(1, after[1] - before[1])
        process.returncode = os.waitstatus_to_exitcode(ended[1])
        log.seek(0)
        said = log.read() + (f"\nstopped after {timeout:.0f} s" if late else "")
    return Ended(process.returncode, seconds, used.ru_maxrss / 1024, anon, others, said)


def _family(pid: int) -> Iterator[int]:
    """A process and all its descendants."""
    yield pid
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:  # it has just ended
        return
    for child in children:
        yield from _family(int(child))


def _anonymous(pid: int) -> float:
    """MiB of resident memory that is no file."""
    try:
        found = re.search(r"^RssAnon:\s+(\d+)", Path(f"/proc/{pid}/status").read_text(), re.M)
    except OSError:
        return 0.0
    return int(found[1]) / 1024 if found else 0.0


def wait_quiet(patience: float) -> float:
    """Wait until others leave the processors alone, but no longer; the share seen at the end."""
    end = time.monotonic() + patience
    while True:
        busy, total = _ticks()
        time.sleep(1.5)
        later, whole = _ticks()
        share = (later - busy) / max(1, whole - total)
        if share < QUIET or time.monotonic() > end:
            return share


def _ticks() -> tuple[int, int]:
    """Busy and all ticks of all processors since the start."""
    ticks = [int(word) for word in Path("/proc/stat").read_text().split("\n")[0].split()[1:9]]
    return sum(ticks) - ticks[3] - ticks[4], sum(ticks)
