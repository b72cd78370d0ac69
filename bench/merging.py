"""What fewer embeddings of a clip cost in words and captions: python bench/merging.py --help

The demo model is exported once and asked with `merge_audio` at each share; the clips are those of
bench/accuracy.py, none of which was trained on.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "runtime")]

import alm  # noqa: E402
from bench.accuracy import answered, exported, unheard  # noqa: E402
from bench.pictures import COLOURS, MEANING, finish  # noqa: E402
from demo.compose import Clip  # noqa: E402
from demo.voices import RATE  # noqa: E402

SHARES = (100, 90, 75, 60, 50, 25)  # percent of the embeddings that are left
Row = dict[str, Any]


def rows(folder: Path, kinds: dict[str, list[Clip]], shares: Sequence[float]) -> list[Row]:
    """Errors in percent by kind of clip, and what the decoder was given, at each share."""
    model = alm.load(folder)
    found: list[Row] = []
    for share in shares:
        given = []

        def ask(clip: Clip, task: str, share: float = share, given: list[int] = given) -> str:
            answer = model.generate((clip.pcm, RATE), task, merge_audio=share)
            given.append(answer.audio_tokens)
            return answer.text

        errors = {kind: each.percent for kind, each in answered(ask, kinds).items()}
        found.append({"share": share, "errors": errors, "tokens": sum(given) / len(given)})
        print(found[-1], flush=True)
    return found


def table(found: Sequence[Row], count: int, command: str) -> str:
    """The results in Markdown."""
    kinds = list(found[0]["errors"])
    lines = [
        "# Fewer audio tokens in the demo model",
        "",
        f"`{command}`, {date.today()}, {platform.machine()} with {platform.system()}, "
        f"{count} clips of each kind. Word errors in percent, captions wrong in percent.",
        "",
        f"| embeddings left | a clip | {' | '.join(kinds)} |",
        f"|---|---|{'---|' * len(kinds)}",
    ]
    for row in found:
        errors = " | ".join(f"{row['errors'][kind]:.1f}" for kind in kinds)
        lines.append(f"| {row['share']:g} % | {row['tokens']:.1f} | {errors} |")
    return "\n".join([*lines, "", *(f"- {kind}: {MEANING[kind]}" for kind in kinds), ""])


def plot(found: Sequence[Row], file: Path) -> None:
    """A line for each kind of clip over the share that is left."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    pyplot.rcParams.update({"font.size": 13, "text.color": "#222222"})
    figure, axes = pyplot.subplots(figsize=(9, 5.5))
    shares = [row["share"] for row in found]
    for colour, kind in zip(COLOURS[1:], found[0]["errors"], strict=False):
        errors = [row["errors"][kind] for row in found]
        label = MEANING[kind].partition(" (")[0]
        axes.plot(shares, errors, color=colour, marker="o", linewidth=2, label=label)
    axes.invert_xaxis()
    axes.set_xticks(shares, [f"{share:g} %" for share in shares])
    axes.set_xlabel("embeddings of a clip that the decoder is given")
    axes.set_ylabel("percent wrong")
    axes.set_ylim(0, 1.55 * max(error for row in found for error in row["errors"].values()))
    finish(figure, axes, "What fewer audio tokens cost the demo model", "upper left", file)


def main() -> None:
    """Measure, print, and write into --out."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", type=Path, default=ROOT / "demo/checkpoint/config.yaml")
    parser.add_argument("--recordings", type=Path, required=True, help="fsdd's recordings")
    parser.add_argument("--clips", type=int, default=60, help="of each kind")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, default=ROOT / "bench/results")
    said = parser.parse_args()
    kinds = unheard(said.recordings, said.clips, said.seed)
    with exported(said.model, "--precision", "fp32") as folder:
        found = rows(folder, kinds, SHARES)
    said.out.mkdir(parents=True, exist_ok=True)
    text = table(
        found, said.clips, f"python bench/merging.py --recordings DIR --clips {said.clips}"
    )
    (said.out / "merging.md").write_text(text, "utf-8")
    (said.out / "merging.json").write_text(json.dumps(found, indent=1), "utf-8")
    plot(found, said.out / "merging.png")
    print(text)


if __name__ == "__main__":
    main()
