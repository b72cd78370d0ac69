"""Clips a second of alm-run in a loop and of the ways of alm batch: python bench/batch.py --help

The clips are the demo's, each with a noise of its own of one part in 10000, so that none is
remembered. Every way is a process as a user starts it, loading the model in its time; the ways take
turns, so that a disturbance of the machine meets all of them.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path

import numpy as np
import soundfile

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "runtime")]

from alm.host import processor  # noqa: E402
from bench.accuracy import exported  # noqa: E402

SOUNDS = ("lamp", "digits", "siren")
ALM_RUN = "import sys; from alm.cli.run_command import run; sys.exit(run())"
ALM = "import sys; from alm.cli.alm_commands import main; sys.exit(main())"
Way = Callable[[], int]  # answers clips, and gives their number
Turn = tuple[float, float]  # clips a second, and milliseconds of processor time a clip


def made_clips(folder: Path, count: int) -> list[str]:
    """So many clips, no two alike."""
    dice, paths = np.random.default_rng(0), []
    for number in range(count):
        pcm, rate = soundfile.read(ROOT / "demo" / f"{SOUNDS[number % len(SOUNDS)]}.wav")
        path = folder / f"{number:04}.wav"
        soundfile.write(path, pcm + 1e-4 * dice.standard_normal(pcm.shape), rate)
        paths.append(str(path))
    return paths


def ways(engine: Path, clips: list[str], looped: int, threads: int) -> dict[str, Way]:
    """What is compared, by what a user types."""
    environment = os.environ | {"PYTHONPATH": str(ROOT / "runtime")}
    given = ("--threads", str(threads)) if threads else ()

    def run(code: str, *words: str) -> None:
        line = [sys.executable, "-c", code, *words]
        subprocess.run(line, check=True, env=environment, capture_output=True)

    def loop() -> int:
        for clip in clips[:looped]:
            run(ALM_RUN, "--engine", str(engine), clip, "transcribe", "--json", *given)
        return looped

    def once() -> int:
        run(ALM_RUN, "--engine", str(engine), *clips, "transcribe", "--json", *given)
        return len(clips)

    def batch(*words: str) -> Way:
        def answer() -> int:
            with tempfile.TemporaryDirectory() as folder:
                out = Path(folder) / "results.jsonl"
                run(ALM, "batch", str(engine), *clips, "--out", str(out), *words)
                assert out.read_bytes().count(b"\n") == len(clips)
            return len(clips)

        return answer

    return {
        "`alm-run` for each clip": loop,
        "`alm-run` once, with all clips": once,
        "`alm batch`": batch(*given),
        "`alm batch --rows 8`": batch("--rows", "8", *given),
        "`alm batch --workers 2`": batch("--workers", "2"),
        "`alm batch --workers 2 --rows 8`": batch("--workers", "2", "--rows", "8"),
    }


def measured(found: dict[str, Way], repeats: int) -> dict[str, list[Turn]]:
    """Every way, in each of its turns."""
    turns: dict[str, list[Turn]] = {name: [] for name in found}
    for _ in range(repeats):
        for name, way in found.items():
            began, worked = time.perf_counter(), _worked()
            count = way()
            took, work = time.perf_counter() - began, _worked() - worked
            turns[name].append((count / took, 1e3 * work / count))
            print(f"{name}: {count / took:.2f} clips/s, {turns[name][-1][1]:.1f} ms", flush=True)
    return turns


def _worked() -> float:
    """Seconds of processor time of the processes that have ended."""
    times = os.times()
    return times.children_user + times.children_system


def middle(numbers: Sequence[float], digits: int) -> str:
    """The median, the least and the most."""
    least, most = min(numbers), max(numbers)
    return f"{statistics.median(numbers):.{digits}f} ({least:.{digits}f}-{most:.{digits}f})"


def table(turns: dict[str, list[Turn]], command: str, count: int, load: str) -> str:
    """The results in Markdown."""
    facts = processor.facts()
    repeats = len(next(iter(turns.values())))
    base = statistics.median(speed for speed, _ in next(iter(turns.values())))
    lines = [
        "# Many clips",
        "",
        f"`{command}`, {date.today()}, {facts['processor']}, {facts['usable_cores']} cores, "
        f"{facts['system']}, load before {load}. {count} clips of 2.0 to 2.9 s, the demo model in "
        "float32. Clips a second, and processor time of all threads a clip, the model's loading in "
        f"both: median (least to most) of {repeats}.",
        "",
        "| way | clips/s | beside the first | processor ms a clip |",
        "|---|---|---|---|",
    ]
    for name, found in turns.items():
        speeds, work = zip(*found, strict=True)
        beside = f"x {statistics.median(speeds) / base:.1f}"
        lines.append(f"| {name} | {middle(speeds, 2)} | {beside} | {middle(work, 0)} |")
    return "\n".join([*lines, ""])


def main(words: Sequence[str] | None = None) -> None:
    """Measure, print, and write into --out."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--engine", type=Path, help="artifacts; exported of the demo if not given")
    parser.add_argument("--clips", type=int, default=120)
    parser.add_argument("--looped", type=int, default=10, help="of them, by alm-run one by one")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=0, help="of the ways with one process")
    parser.add_argument("--out", type=Path, default=ROOT / "bench/results")
    said = parser.parse_args(words)
    command = f"python bench/batch.py --clips {said.clips} --repeats {said.repeats}"
    command += f" --looped {said.looped}"
    command += f" --threads {said.threads}" if said.threads else ""
    with contextlib.ExitStack() as stack:
        site = Path(tempfile.mkdtemp())
        stack.callback(shutil.rmtree, site)
        demo = ROOT / "demo" / "checkpoint" / "config.yaml"
        engine = said.engine or stack.enter_context(exported(demo, "--dynamic-batch"))
        load = f"{os.getloadavg()[0]:.1f}"
        found = ways(engine, made_clips(site, said.clips), said.looped, said.threads)
        turns = measured(found, said.repeats)
    text = table(turns, command, said.clips, load)
    said.out.mkdir(parents=True, exist_ok=True)
    (said.out / "batch.md").write_text(text, "utf-8")
    print(text)


if __name__ == "__main__":
    main()
