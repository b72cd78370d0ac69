"""What a run costs before its first token: python bench/startup.py --engine artifacts clip.wav

CPU and wall seconds of whole `alm-run` processes that say one token, beside an interpreter that
only imports the backend: the difference is ours.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from pathlib import Path

RUN = "import sys; from alm.cli.run_command import run; sys.exit(run())"


def measured(words: list[str]) -> tuple[float, float]:
    """CPU and wall seconds of one process, by the operating system's own account."""
    start = time.perf_counter()
    null = os.open(os.devnull, os.O_WRONLY)
    process = os.posix_spawn(
        sys.executable,
        [sys.executable, *words],
        os.environ,
        file_actions=[(os.POSIX_SPAWN_DUP2, null, 1)],
    )
    _, status, used = os.wait4(process, 0)
    os.close(null)
    if status:
        raise SystemExit(f"{' '.join(words)} failed")
    return used.ru_utime + used.ru_stime, time.perf_counter() - start


def main() -> None:
    """Print medians and spread."""
    parser = argparse.ArgumentParser(description="what a run costs before its first token")
    parser.add_argument("--engine", type=Path, default=Path("artifacts"))
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("clip", type=Path)
    said = parser.parse_args()
    spoken = ["--engine", str(said.engine), str(said.clip), "transcribe", "--max-new-tokens", "1"]
    rows = {
        "python": ["-c", "pass"],
        "import onnxruntime": ["-c", "import onnxruntime"],
        "alm-run, one token": ["-c", RUN, *spoken, "--greedy"],
    }
    print(f"{'':20} CPU s: median (least-most)   wall s: median (least-most)")
    for name, words in rows.items():
        measured(words)  # caches warm
        runs = [measured(words) for _ in range(said.repeats)]
        columns = [
            f"{statistics.median(c):.3f} ({min(c):.3f}-{max(c):.3f})"
            for c in zip(*runs, strict=True)
        ]
        print(f"{name:20} {columns[0]:28} {columns[1]}")


if __name__ == "__main__":
    main()
