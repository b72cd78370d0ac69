"""What each precision costs in accuracy and saves in bytes: python bench/accuracy.py --help

The demo model is exported once for each precision and asked through `alm`, as on a device; torch
answers the same clips beside it. The clips follow from --seed, and none was trained on.
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import re
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import date
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "runtime")]

import alm  # noqa: E402
from demo.compose import Clip, Sources, compose  # noqa: E402
from demo.phrases import caption  # noqa: E402
from demo.prepare import watched  # noqa: E402
from demo.voices import RATE  # noqa: E402

LIMITS = {"voices": 5.0, "takes": 5.0, "stranger": 25.0, "captions": 5.0}  # percent wrong
MEANING = {
    "voices": "espeak-ng voices never heard",
    "takes": "recorded digits, new takes of known speakers",
    "stranger": "recorded digits, a speaker never heard",
    "over": "speech of new voices over a sound",
    "captions": "captions (share that is not exactly right)",
}
# Of the bars; told apart also by those who see red and green alike (Okabe and Ito).
COLOURS = (
    *("#444444", "#0072b2", "#56b4e9", "#009e73", "#e69f00", "#d55e00", "#cc79a7", "#b2b2b2"),
)
Ask = Callable[[Clip, str], str]


@dataclass(frozen=True)
class Row:
    """One line of the table: errors in percent by kind of clip."""

    precision: str
    bytes: int
    errors: dict[str, float]
    seconds_a_clip: float


@cache
def _normaliser() -> Callable[[str], str]:
    from transformers.models.whisper.english_normalizer import EnglishTextNormalizer

    return EnglishTextNormalizer({})


def normal(text: str) -> str:
    """By Whisper's English normaliser, with digits apart.

    It writes "one two three" as 123, one word; a string of six digits with one wrong would be
    wrong as a whole.
    """
    return re.sub(r"(?<=\d)(?=\d)", " ", _normaliser()(text))


def measure(ask: Ask, kinds: dict[str, list[Clip]]) -> tuple[dict[str, float], float]:
    """Errors by kind in percent, and seconds a clip."""
    import jiwer

    errors: dict[str, float] = {}
    start, count = time.perf_counter(), 0
    for name, clips in kinds.items():
        count += len(clips)
        if name == "captions":
            right = [normal(caption(clip.sound, bool(clip.words))) for clip in clips]
            said = [normal(ask(clip, "describe")) for clip in clips]
            wrong = sum(a != b for a, b in zip(right, said, strict=True)) / len(clips)
        else:
            right = [normal(clip.text) for clip in clips]
            wrong = float(jiwer.wer(right, [normal(ask(clip, "transcribe")) for clip in clips]))
        errors[name] = round(100 * wrong, 2)
    return errors, (time.perf_counter() - start) / count


def torch_row(checkpoint: Path, kinds: dict[str, list[Clip]]) -> Row:
    """The torch modules that the graphs are made from."""
    from demo.reference import Reference

    reference = Reference(checkpoint)
    errors, seconds = measure(lambda clip, task: reference.answer(clip.pcm, task), kinds)
    files = [file for file in checkpoint.parent.rglob("*") if file.is_file()]
    return Row("torch", sum(file.stat().st_size for file in files), errors, seconds)


@contextmanager
def exported(checkpoint: Path, *words: str) -> Iterator[Path]:
    """The checkpoint's artifacts, of an export with these words; they go at the end."""
    with tempfile.TemporaryDirectory() as site:
        folder = Path(site) / "artifacts"
        command = [sys.executable, str(ROOT / "export.py"), "--model", str(checkpoint)]
        command += ["--out", str(folder), *words]
        subprocess.run(command, check=True, cwd=ROOT, stdout=subprocess.DEVNULL)
        yield folder


def exported_row(
    checkpoint: Path,
    precision: str,
    kinds: dict[str, list[Clip]],
    parts: Sequence[str] = (),
    calibrate: Path | None = None,
) -> Row:
    """The graphs at this precision: all, or those of `parts`, with the others in float32."""
    from alm.precision import ROLES
    from exporters import precisions

    words = ["--precision", ",".join(f"{part}={precision}" for part in parts) or precision]
    if calibrate and any(map(precisions.pull(precision).listens, ROLES)):
        words += ["--calibrate", str(calibrate)]
    with exported(checkpoint, *words) as folder:
        model = alm.load(folder)

        def ask(clip: Clip, task: str) -> str:
            return model.generate((clip.pcm, RATE), task).text

        errors, seconds = measure(ask, kinds)
        return Row(precision, sum(part.bytes for part in model.manifest.parts), errors, seconds)


def table(rows: list[Row], clips: int, command: str) -> str:
    """The results in Markdown."""
    kinds = list(rows[0].errors)
    lines = [
        "# Accuracy of the demo model",
        "",
        f"`{command}`, {date.today()}, {platform.machine()} with {platform.system()}, "
        f"{clips} clips of each kind. Word errors in percent, captions wrong in percent.",
        "",
        f"| precision | megabytes | {' | '.join(kinds)} | seconds a clip |",
        f"|---|---|{'---|' * len(kinds)}---|",
    ]
    for row in rows:
        errors = " | ".join(f"{row.errors[kind]:.2f}" for kind in kinds)
        megabytes = f"{row.bytes / 1e6:.1f}"
        lines.append(f"| {row.precision} | {megabytes} | {errors} | {row.seconds_a_clip:.3f} |")
    lines += ["", *(f"- {kind}: {MEANING[kind]}" for kind in kinds), ""]
    return "\n".join(lines)


def plot(rows: list[Row], file: Path) -> None:
    """A group of bars for each kind of clip, a bar for each precision, its megabytes beside it."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    pyplot.rcParams.update({"font.size": 13, "text.color": "#222222"})
    kinds, high = list(rows[0].errors), 0.8 / len(rows)
    figure, axes = pyplot.subplots(figsize=(11, 1.2 + 0.24 * len(rows) * len(kinds)))
    for i, row in enumerate(rows):
        at = [number + high * i for number in range(len(kinds))]
        errors = [row.errors[kind] for kind in kinds]
        label = f"{row.precision}, {row.bytes / 1e6:.1f} MB"
        bars = axes.barh(at, errors, 0.9 * high, color=COLOURS[i % len(COLOURS)], label=label)
        axes.bar_label(bars, [f"{error:.1f}" for error in errors], padding=3, fontsize=10)
    middle = 0.4 - high / 2
    names = [textwrap.fill(MEANING[kind].partition(" (")[0], 24) for kind in kinds]
    axes.set_yticks([number + middle for number in range(len(kinds))], names)
    axes.invert_yaxis()
    axes.set_xlabel("percent wrong")
    finish(figure, axes, "What a precision costs the demo model", "lower right", file)


def finish(figure: Any, axes: Any, title: str, legend: str, file: Path) -> None:
    """Give a picture its title, and its legend a place, and write it."""
    axes.set_title(title, loc="left", weight="bold")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc=legend)
    figure.tight_layout()
    figure.savefig(file, dpi=110, facecolor="white")


def main() -> None:
    """Measure, print, and write into --out."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", type=Path, default=ROOT / "demo/checkpoint/config.yaml")
    parser.add_argument("--recordings", type=Path, help="fsdd's recordings")
    parser.add_argument("--precision", action="append", help="of export.py; fp32 if not said")
    parser.add_argument("--part", action="append", help="that has them; all if not said")
    parser.add_argument("--calibrate", type=Path, help="clips for levers that are fitted to some")
    parser.add_argument("--clips", type=int, default=100, help="of each kind")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, default=ROOT / "bench/results")
    parser.add_argument(
        "--picture", action="store_true", help="draw --out's figures again, and stop"
    )
    said = parser.parse_args()
    if said.picture:
        found = json.loads((said.out / "accuracy.json").read_text("utf-8"))["rows"]
        return plot([Row(**row) for row in found], said.out / "accuracy.png")
    if said.recordings is None:
        parser.error("wanted --recordings, the folder of fsdd's recordings")
    kinds = unheard(said.recordings, said.clips, said.seed)
    rows = [torch_row(said.model, kinds)]
    for precision in said.precision or ["fp32"]:
        parts = said.part or ()
        rows.append(exported_row(said.model, precision, kinds, parts, said.calibrate))
        print(rows[-1], flush=True)
    said.out.mkdir(parents=True, exist_ok=True)
    command = "python bench/accuracy.py --recordings DIR " + " ".join(
        [
            *(f"--precision {row.precision}" for row in rows[1:]),
            *(f"--part {part}" for part in said.part or ()),
            *(["--calibrate CLIPS"] if said.calibrate else []),
        ]
    )
    text = table(rows, said.clips, command)
    (said.out / "accuracy.md").write_text(text, "utf-8")
    plain: dict[str, Any] = {"limits": LIMITS, "rows": [asdict(row) for row in rows]}
    (said.out / "accuracy.json").write_text(json.dumps(plain, indent=1), "utf-8")
    plot(rows, said.out / "accuracy.png")
    print(text)


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
