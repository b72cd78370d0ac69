"""What a clip costs that is shorter than its window of 30 s: python bench/clip_length.py --layers 4

The tower of Qwen2-Audio and of Audio Flamingo 3, at its real width and with random weights, once as
it is exported (the clip alone is computed) and once over its whole window, in turn in one process.
Seconds are of the processor, so that what else runs counts little.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "runtime")]

from alm import backends  # noqa: E402
from alm.artifacts.part import Part  # noqa: E402
from alm.parsing import File  # noqa: E402
from alm.session import BackendOptions  # noqa: E402
from exporters import graph, simplify  # noqa: E402
from wrappers import randomised  # noqa: E402
from wrappers.dialect import bound  # noqa: E402
from wrappers.encoders import whisper  # noqa: E402

CLIPS = (1, 5, 10, 20, 30)  # seconds
DIALECTS = ("ort", "standard", "decomposed")
SIZES: dict[str, Any] = dict(
    num_mel_bins=128, d_model=1280, encoder_attention_heads=20, encoder_ffn_dim=5120
)
Run = Callable[[int], None]


def tower(dialect: str, layers: int, folder: Path, threads: int, *, cut: bool) -> Run:
    """The exported tower; what is called with seconds runs it on a clip of them."""
    with bound(dialect):
        config = SIZES | {"encoder_layers": layers}
        part = randomised(whisper.build(config, pooled=True, cut=cut))
    graph.save(simplify.simplify(graph.trace(part, dynamic_batch=False)), folder / "t.onnx", "t")
    there = Part("t", "encoder", (File("t.onnx", 0, ""),))
    session = backends.open_session(there, folder, BackendOptions("cpu", threads), trusted=True)
    noise = np.random.default_rng(0).standard_normal((1, 128, 3002), np.float32)

    def run(seconds: int) -> None:
        frames = 100 * seconds + 2 if cut else 3000
        samples = np.array([16_000 * seconds])
        session.run({"log_mel": noise[:, :, :frames], "pcm_lengths": samples})

    return run


def measure(run: Run, repeats: int) -> dict[int, list[float]]:
    """Seconds of the clip -> milliseconds of the processor, all lengths in turn."""
    taken: dict[int, list[float]] = {seconds: [] for seconds in CLIPS}
    for _ in range(repeats + 1):  # the first warms up
        for seconds in CLIPS:
            start = time.process_time()
            run(seconds)
            taken[seconds].append((time.process_time() - start) * 1e3)
    return {seconds: ms[1:] for seconds, ms in taken.items()}


def main() -> None:
    """Print a row for each dialect."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--layers", type=int, default=4, help="of the tower; the real one has 32")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    print("| dialect | computed |", " | ".join(f"{s} s" for s in CLIPS), "| 5 s / 30 s |")
    print("|---|---|" + "---|" * (len(CLIPS) + 1))
    for dialect in DIALECTS:
        for cut in (True, False):
            with tempfile.TemporaryDirectory() as folder:
                run = tower(dialect, given.layers, Path(folder), given.threads, cut=cut)
                taken = measure(run, given.repeats)
            median = {seconds: statistics.median(ms) for seconds, ms in taken.items()}
            cells = [
                f"{median[seconds]:.0f} ({min(ms):.0f} to {max(ms):.0f})"
                for seconds, ms in taken.items()
            ]
            what = "the clip" if cut else "its window"
            print(
                f"| `{dialect}` | {what} |", " | ".join(cells), f"| {median[5] / median[30]:.2f} |"
            )


if __name__ == "__main__":
    main()
