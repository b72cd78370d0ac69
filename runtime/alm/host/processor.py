"""What this machine is and can do, and what this process holds of its memory."""

from __future__ import annotations

import os
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from alm.errors import BadOption

MIB = 2**20
STATUS = Path("/proc/self/status")
PATIENCE = 0.4  # seconds for each measurement
LEAST_LIMIT, THREADS_A_CORE = 64, 4  # of threads of each graph: more only wait for each other
WIDE = 1024  # of the square matrices of the peak: 2.1 GFLOP a product


def facts() -> dict[str, Any]:
    """Processor, cores, memory in bytes, system and versions; what cannot be found out is None."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "usable_cores": usable_cores(),
        "memory_bytes": _kib(Path("/proc/meminfo"), "MemTotal"),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
        "numpy": np.__version__,
    }


def usable_cores() -> int:
    """Cores that this process may run on: containers and taskset leave fewer than there are."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def check_threads(threads: int) -> None:
    """Refuse, with BadOption, more threads than could help: each takes memory at once."""
    most = max(LEAST_LIMIT, THREADS_A_CORE * usable_cores())
    if not isinstance(threads, int) or not 0 <= threads <= most:
        raise BadOption(
            f"threads are 0 (the backend's choice) to {most} on this machine, not {threads!r:.40}"
        )


def available() -> int | None:
    """Bytes of memory that programs may still take; None where the system reports none."""
    return _kib(Path("/proc/meminfo"), "MemAvailable")


def bandwidth() -> float:
    """Bytes per second read from memory: the best of matrix times vector in float32.

    Done by numpy with its own threads on a matrix that no cache holds, for less than a second.
    """
    room = available()
    side = 8192 if room is None or room > 2048 * MIB else 4096  # 256 or 64 MiB
    matrix, vector = np.ones((side, side), np.float32), np.ones(side, np.float32)
    return matrix.nbytes / _best(lambda: matrix @ vector)


def peak() -> float:
    """Operations per second: the best of a float32 matrix product, by numpy with its threads.

    Not the most that is possible: backends multiply int8 several times as fast.
    """
    matrix = np.ones((WIDE, WIDE), np.float32)
    return 2 * WIDE**3 / _best(lambda: matrix @ matrix)


def memory() -> dict[str, int | None]:
    """Bytes of this process in memory: resident, of these its own and of files, and their peak.

    None where the system reports none; the peak is counted since `forget_peak` if that worked.
    """
    sizes = {
        "resident": _kib(STATUS, "VmRSS"),
        "own": _kib(STATUS, "RssAnon"),
        "of_files": _kib(STATUS, "RssFile"),
        "peak": _kib(STATUS, "VmHWM"),
    }
    if sizes["peak"] is None:
        sizes["peak"] = _most_by_rusage()
    return sizes


def forget_peak() -> bool:
    """Let the peak of `memory` begin anew from now; False where the system does not allow it."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def _best(work: Callable[[], object]) -> float:
    """The least of the seconds that `work` takes; the first one only warms up."""
    work()
    best, until = float("inf"), time.perf_counter() + PATIENCE
    while best == float("inf") or time.perf_counter() < until:
        start = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - start)
    return best


def _processor() -> str:
    lines = _lines(Path("/proc/cpuinfo"))
    for name in ("model name", "Model", "Hardware"):  # x86, then boards with ARM
        for line in lines:
            if line.partition(":")[0].strip() == name:
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _kib(path: Path, name: str) -> int | None:
    """A line "name: 123 kB" in bytes."""
    for line in _lines(path):
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    return None


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text("utf-8", "replace").splitlines()
    except OSError:  # no Linux
        return []


def _most_by_rusage() -> int | None:
    try:
        import resource
    except ImportError:  # Windows
        return None
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024
