"""Where every byte is while a model answers: python bench/memory.py ARTIFACTS CLIP

The parts are opened and run one after another in this process, and what the system counts as
resident is read after each (Linux only). The last row is `alm-run` itself on the same clip, from
outside.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "runtime")]

MIB = 2**20


@dataclass(frozen=True)
class Resident:
    """Megabytes (10^6) of this process: the peak since the last look, now, without files."""

    peak: float
    now: float
    anonymous: float


def look() -> Resident:
    """Read the kernel's counters, and begin a new peak."""
    said = Path("/proc/self/status").read_text()

    def megabytes(name: str) -> float:
        found = re.search(rf"^{name}:\s+(\d+) kB", said, re.M)
        assert found is not None
        return int(found[1]) * 1024 / 1e6

    seen = Resident(megabytes("VmHWM"), megabytes("VmRSS"), megabytes("RssAnon"))
    Path("/proc/self/clear_refs").write_text("5")
    return seen


def stages(folder: Path, clip: Path, threads: int) -> Iterator[tuple[str, float, Resident]]:
    """What is done, the megabytes of its files, and what is resident after it."""
    import alm
    from alm import manifest, pipeline
    from alm.backends._session import EngineOptions

    yield "Python, numpy and ONNX Runtime", 0.0, look()
    said, sessions = manifest.load(folder), {}
    for part in said.parts:
        if part.role == "table":
            continue
        sessions[part.name] = pipeline.open_part(folder, part, EngineOptions("cpu", threads))
        yield f"{part.name} opened", part.bytes / 1e6, look()
    del sessions
    model = alm.load(folder, "cpu", threads)
    yield "all of that again by `alm.load`, the tokenizer too", 0.0, look()
    model.generate(clip, "transcribe", num_beams=1, max_new_tokens=32)
    yield "32 tokens said of it", 0.0, look()


def outside(folder: Path, clip: Path) -> float:
    """The peak of `alm-run` in megabytes, as the system has it when the process has ended."""
    import resource

    words = [sys.executable, "-c", "from alm.cli import run; raise SystemExit(run())"]
    words += ["--engine", str(folder), str(clip), "transcribe", "--num-beams", "1"]
    words += ["--max-new-tokens", "32", "--provider", "cpu", "--json"]
    environment: dict[str, Any] = {"PYTHONPATH": str(ROOT / "runtime")}
    subprocess.run(words, check=True, env=environment, stdout=subprocess.DEVNULL)
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024 / 1e6


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
