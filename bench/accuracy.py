"""What each lever costs in accuracy and saves in bytes and time: python bench/accuracy.py --help

The demo model is exported once for each precision and asked through `alm`, as on a device; torch
answers the same clips beside it. The clips follow from --seed, and none was trained on; levers that
are fitted to clips hear others, of --seed + 1.
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "runtime")]

import alm  # noqa: E402
from bench.pictures import MEANING, pareto  # noqa: E402
from bench.quality import (  # noqa: E402
    CAPTIONED,
    Judged,
    Row,
    hard,
    judged,
    no_worse,
    right,
)
from demo.compose import Clip, Sources, compose  # noqa: E402
from demo.prepare import watched  # noqa: E402
from demo.voices import RATE  # noqa: E402

LIMITS = {"voices": 5.0, "takes": 5.0, "stranger": 25.0, "captions": 5.0}  # percent wrong
NOTES = (
    "- CIDEr-D: of pycocoevalcap, one reference a clip. SPIDEr, its mean with SPICE, is not known:",
    "  the parser of SPICE is a Java program with models to download.",
    "- no worse: percent of all clips whose answer has no more errors than torch's (QoI).",
    "- length: words of all answers, as a share of torch's; circling: percent of answers in which "
    "three words come three times.",
    "- peak MB: the most memory of a process that loads it and answers a clip of each kind.",
    "- ms a clip: all rows take turns with every clip.",
)
# What is measured if nothing is said: each lever, and what is worth joining.
LEVERS = (
    *("fp32", "fp16", "int8", "int8+lowrank", "int8+lowrank:energy=0.99"),
    *("int8+prune:ratio=0.1", "int4", "int4head8", "int4mixed"),
    *("int4gptq", "int4+kv8", "int4+lowrank"),
)
TIMED, TURNS = 6, 5  # clips of each kind that are timed, and how often
FITTED = 8  # clips of each kind that levers are fitted to
Ask = Callable[[Clip, str], str]


@dataclass
class Answering:
    """What answers clips: torch's modules, or the graphs of one precision."""

    precision: str
    model: Path  # for bench/peak.py
    bytes: int
    ask: Ask
    found: dict[str, Judged] = field(default_factory=dict)

    def answer(self, kinds: dict[str, list[Clip]]) -> None:
        """Answer all clips, and judge the answers."""
        self.found.update(answered(self.ask, kinds))


def answered(ask: Ask, kinds: dict[str, list[Clip]]) -> dict[str, Judged]:
    """How clips are answered, by kind."""
    return {
        kind: judged(kind, right(kind, clips), [ask(clip, task(kind)) for clip in clips])
        for kind, clips in kinds.items()
    }


def task(kind: str) -> str:
    """What is asked about clips of a kind."""
    return "describe" if kind in CAPTIONED else "transcribe"


def timed(every: Sequence[Answering], kinds: dict[str, list[Clip]]) -> list[float]:
    """Seconds a clip of each, which take turns with every clip: a machine's speed drifts.

    Of each clip the median of its turns counts, and of the clips their mean.
    """
    clips = [(clip, task(kind)) for kind, some in kinds.items() for clip in some[:TIMED]]
    took = np.zeros((TURNS, len(clips), len(every)))
    for turn in range(TURNS):
        for i, (clip, words) in enumerate(clips):
            for j, one in enumerate(every):
                start = time.perf_counter()
                one.ask(clip, words)
                took[turn, i, j] = time.perf_counter() - start
    return [float(seconds) for seconds in np.median(took, 0).mean(0)]


def row(one: Answering, seconds: float, first: dict[str, Judged], clips: Sequence[Path]) -> Row:
    """A line of the table, beside what the original answered."""
    found = one.found
    every = found.values()
    return Row(
        one.precision,
        one.bytes,
        {kind: each.percent for kind, each in found.items()},
        seconds,
        {kind: each.cider for kind, each in found.items() if each.cider is not None},
        no_worse(first, found),
        round(sum(each.said for each in every) / sum(each.said for each in first.values()), 3),
        round(100 * sum(e.circling for e in every) / sum(len(e.wrong) for e in every), 2),
        round(peak(one.model, clips) / 1e6, 1),
    )


def peak(model: Path, clips: Sequence[Path]) -> int:
    """The most bytes of memory of a process of its own that answers clips."""
    command = [sys.executable, str(ROOT / "bench" / "peak.py"), str(model), *map(str, clips)]
    return int(subprocess.run(command, check=True, cwd=ROOT, stdout=subprocess.PIPE).stdout)


def by_torch(checkpoint: Path) -> Answering:
    """The torch modules that the graphs are made from."""
    from demo.reference import Reference

    reference = Reference(checkpoint)
    size = sum(file.stat().st_size for file in checkpoint.parent.rglob("*") if file.is_file())
    return Answering(
        "torch", checkpoint, size, lambda clip, words: reference.answer(clip.pcm, words)
    )


def export(checkpoint: Path, folder: Path, *words: str) -> None:
    """Export a checkpoint with these words."""
    command = [sys.executable, str(ROOT / "export.py"), "--model", str(checkpoint)]
    command += ["--out", str(folder), *words]
    subprocess.run(command, check=True, cwd=ROOT, stdout=subprocess.DEVNULL)


@contextmanager
def exported(checkpoint: Path, *words: str) -> Iterator[Path]:
    """The checkpoint's artifacts, of an export with these words; they go at the end."""
    with tempfile.TemporaryDirectory() as site:
        export(checkpoint, Path(site) / "artifacts", *words)
        yield Path(site) / "artifacts"


def by_graphs(
    checkpoint: Path,
    precision: str,
    folder: Path,
    parts: Sequence[str] = (),
    calibrate: Path | None = None,
) -> Answering:
    """The graphs at this precision: all, or those of `parts`, with the others in float32."""
    from alm.precision import ROLES
    from exporters import precisions

    named = ",".join(f"{part}={precision}" for part in parts)
    words = ["--no-golden", "--precision", named or precision]
    if calibrate and any(map(precisions.pull(precision).listens, ROLES)):
        words += ["--calibrate", str(calibrate)]
    export(checkpoint, folder, *words)
    model = alm.load(folder, audio_cache=0)

    def ask(clip: Clip, words: str) -> str:
        return model.generate((clip.pcm, RATE), words).text

    return Answering(precision, folder, sum(p.bytes for p in model.manifest.parts), ask)


def table(rows: list[Row], clips: int, command: str) -> str:
    """The results in Markdown."""
    kinds, captions = list(rows[0].errors), list(rows[0].cider)
    heads = ["precision", "MB", *kinds, *(f"CIDEr-D, {kind}" for kind in captions)]
    heads += ["no worse", "length", "circling", "peak MB", "ms a clip"]
    lines = [
        "# Accuracy of the demo model",
        "",
        f"`{command}`, {date.today()}, {platform.machine()} with {platform.system()}, "
        f"{clips} clips of each kind. Word errors in percent, captions wrong in percent.",
        "",
        f"| {' | '.join(heads)} |",
        "|---" * len(heads) + "|",
    ]
    for one in rows:
        cells = [one.precision, f"{one.bytes / 1e6:.1f}"]
        cells += [f"{one.errors[kind]:.2f}" for kind in kinds]
        cells += [f"{one.cider[kind]:.2f}" for kind in captions]
        cells += [f"{one.no_worse:.1f}", f"{one.length:.3f}", f"{one.circling:.1f}"]
        cells += [f"{one.peak_mb:.0f}", f"{1e3 * one.seconds_a_clip:.0f}"]
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", *(f"- {kind}: {MEANING[kind]}" for kind in kinds)]
    return "\n".join([*lines, *NOTES, ""])


def main() -> None:
    """Measure, print, and write into --out."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", type=Path, default=ROOT / "demo/checkpoint/config.yaml")
    parser.add_argument("--recordings", type=Path, help="fsdd's recordings")
    parser.add_argument("--precision", action="append", help="of export.py; all levers if not said")
    parser.add_argument("--part", action="append", help="that has them; all if not said")
    parser.add_argument("--calibrate", type=Path, help="clips for levers that are fitted to some")
    parser.add_argument("--clips", type=int, default=100, help="of each kind")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, default=ROOT / "bench/results")
    parser.add_argument(
        "--picture", action="store_true", help="draw --out's figure again, and stop"
    )
    said = parser.parse_args()
    if said.picture:
        found = json.loads((said.out / "accuracy.json").read_text("utf-8"))["rows"]
        return pareto([Row(**one) for one in found], said.out / "accuracy.png")
    if said.recordings is None:
        parser.error("wanted --recordings, the folder of fsdd's recordings")
    kinds = unheard(said.recordings, said.clips, said.seed) | {"hard": hard(said.clips, said.seed)}
    every, parts = [by_torch(said.model)], said.part or ()
    with tempfile.TemporaryDirectory() as folder:
        # A folder of its own: the artifacts beside it hold clips as well.
        heard = written(Path(folder) / "clips", said.recordings, said.seed + 1)
        calibrate = said.calibrate or heard
        for number, name in enumerate(said.precision or LEVERS):
            site = Path(folder) / f"artifacts-{number}"
            every.append(by_graphs(said.model, name, site, parts, calibrate))
        for one in every:
            one.answer(kinds)
            print(one.precision, {k: each.percent for k, each in one.found.items()}, flush=True)
        seconds, one_each = timed(every, kinds), sorted(heard.glob("*00.wav"))
        judged_by = every[0].found
        rows = [row(o, s, judged_by, one_each) for o, s in zip(every, seconds, strict=True)]
    said.out.mkdir(parents=True, exist_ok=True)
    command = "python bench/accuracy.py --recordings DIR " + " ".join(
        [
            *(f"--precision {name}" for name in said.precision or ()),
            *(f"--part {part}" for part in parts),
            *(["--calibrate CLIPS"] if said.calibrate else []),
            *([f"--clips {said.clips}"] if said.clips != parser.get_default("clips") else []),
        ]
    )
    text = table(rows, said.clips, command.strip())
    (said.out / "accuracy.md").write_text(text, "utf-8")
    plain: dict[str, Any] = {"limits": LIMITS, "rows": [asdict(one) for one in rows]}
    (said.out / "accuracy.json").write_text(json.dumps(plain, indent=1), "utf-8")
    pareto(rows, said.out / "accuracy.png")
    print(text)


def written(folder: Path, recordings: Path, seed: int) -> Path:
    """A folder of clips of all kinds that levers may be fitted to."""
    import soundfile

    folder.mkdir()
    for kind, some in unheard(recordings, FITTED, seed).items():
        for number, clip in enumerate(some):
            soundfile.write(folder / f"{kind}{number:02}.wav", clip.pcm, RATE)
    return folder


def unheard(recordings: Path, count: int, seed: int) -> dict[str, list[Clip]]:
    """So many clips of each kind, which follow from the seed."""
    return {
        name: clips(sources, count, f"{seed} {name}")
        for name, sources in watched(recordings).items()
    }


def clips(sources: Sources, count: int, seed: str) -> list[Clip]:
    """Clips that training never saw."""
    chance = random.Random(seed)
    kinds = chance.choices(list(sources.shares), list(sources.shares.values()), k=count)
    return [compose(kind, sources, chance) for kind in kinds]


if __name__ == "__main__":
    main()
