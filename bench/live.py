"""What a live run holds as it goes on, and how long a step takes: python bench/live.py ENGINE."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

import alm

STATUS = Path("/proc/self/status")


def resident() -> float:
    """MiB of this process in memory (Linux)."""
    line = next(row for row in STATUS.read_text().splitlines() if row.startswith("VmRSS"))
    return int(line.split()[1]) / 1024


def sound(seconds: int, rate: int) -> Iterator[np.ndarray]:
    """Noise that swells and fades, a second at a time."""
    noise = np.random.default_rng(0)
    for second in range(seconds):
        yield (0.2 * abs(np.sin(second)) * noise.standard_normal(rate)).astype(np.float32)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("engine", type=Path, help="the folder of a model that hears a stream")
    parser.add_argument("--minutes", type=int, default=60)
    parser.add_argument("--at", type=int, nargs="*", default=[1, 5, 10, 20, 30, 45, 60])
    given = parser.parse_args()
    model = alm.load(given.engine, "cpu", threads=1)
    facts = model.manifest.facts
    live, began = model.live(), time.process_time()
    print("minutes  tokens  MiB resident  CPU ms a step")
    for second, piece in enumerate(sound(60 * given.minutes, facts.audio.rate), 1):
        live.feed(piece)
        if second % 60 == 0 and second // 60 in {*given.at, given.minutes}:
            steps = second * facts.audio.rate / facts.live.step_samples
            ms = 1e3 * (time.process_time() - began) / steps
            row = f"{second // 60:7}  {len(live.token_ids):6}  {resident():12.1f}  {ms:13.2f}"
            print(row, flush=True)
    live.finish()


if __name__ == "__main__":
    main()
