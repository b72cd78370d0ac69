"""Where every byte is while a model answers: python bench/memory.py ARTIFACTS CLIP

The parts are opened and run one after another in this process, and what the system counts as
resident is read after each (Linux only). The last row is `alm-run` itself on the same clip, from
outside.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "runtime")]

from alm.host import processor  # noqa: E402
from bench.beside.process import watched  # noqa: E402

TIMEOUT = 600.0  # seconds of the answer


@dataclass(frozen=True)
class Resident:
    """Megabytes (10^6) of this process: the peak since the last look, now, without files."""

    peak: float
    now: float
    anonymous: float


def look() -> Resident:
    """Read the kernel's counters, and begin a new peak."""
    said = processor.memory()
    processor.forget_peak()
    return Resident(*((said[name] or 0) / 1e6 for name in ("peak", "resident", "own")))


def stages(folder: Path, clip: Path, threads: int) -> Iterator[tuple[str, float, Resident]]:
    """What is done, the megabytes of its files, and what is resident after it."""
    import alm
    from alm import backends
    from alm.artifacts import manifest
    from alm.session import BackendOptions

    yield "Python, numpy and ONNX Runtime", 0.0, look()
    said, sessions = manifest.load(folder), {}
    for part in said.parts:
        if part.role == "table":
            continue
        sessions[part.name] = backends.open_session(part, folder, BackendOptions("cpu", threads))
        yield f"{part.name} opened", part.bytes / 1e6, look()
    del sessions
    model = alm.load(folder, "cpu", threads)
    yield "all of that again by `alm.load`, the tokenizer too", 0.0, look()
    model.generate(clip, "transcribe", num_beams=1, max_new_tokens=32)
    yield "32 tokens said of it", 0.0, look()


def outside(folder: Path, clip: Path) -> float:
    """The peak of `alm-run` in megabytes, as the system has it when the process has ended."""
    words = [sys.executable, "-c", "from alm.cli.run_command import run; raise SystemExit(run())"]
    words += ["--engine", str(folder.resolve()), str(clip.resolve()), "transcribe"]
    words += ["--num-beams", "1", "--max-new-tokens", "32", "--provider", "cpu", "--json"]
    ended = watched(words, {"PYTHONPATH": str(ROOT / "runtime")}, TIMEOUT, ROOT)
    if ended.status:
        raise SystemExit(ended.last)
    return ended.peak_mb * 2**20 / 1e6


def main() -> None:
    """Print the table in Markdown."""
    parser = argparse.ArgumentParser(description="where every byte is while a model answers")
    parser.add_argument("folder", type=Path, help="what export.py wrote")
    parser.add_argument("clip", type=Path)
    parser.add_argument("--threads", type=int, default=2)
    said = parser.parse_args()
    whole = outside(said.folder, said.clip)
    print("| MB | files | resident | without files | peak meanwhile |")
    print("|---|---|---|---|---|")
    for name, files, seen in stages(said.folder, said.clip, said.threads):
        size = f"{files:.0f}" if files else ""
        print(f"| {name} | {size} | {seen.now:.0f} | {seen.anonymous:.0f} | {seen.peak:.0f} |")
    print(f"| **`alm-run` on the clip, its peak** | | **{whole:.0f}** | | |")


if __name__ == "__main__":
    main()
