"""Pictures of what levers cost the demo model and save."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from bench.quality import CAPTIONED, Row

MEANING = {
    "voices": "espeak-ng voices never heard",
    "takes": "recorded digits, new takes of known speakers",
    "stranger": "recorded digits, a speaker never heard",
    "over": "speech of new voices over a sound",
    "captions": "captions (share that is not exactly right)",
    "hard": "captions of sounds of 0.5 to 2 s, over another sound and hiss",
}
# Told apart also by those who see red and green alike (Okabe and Ito).
COLOURS = (
    *("#444444", "#0072b2", "#56b4e9", "#009e73", "#e69f00", "#d55e00", "#cc79a7", "#b2b2b2"),
)


def finish(figure: Any, axes: Any, title: str, legend: str, file: Path) -> None:
    """Give a picture its title, and its legend a place, and write it."""
    axes.set_title(title, loc="left", weight="bold")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc=legend)
    figure.tight_layout()
    figure.savefig(file, dpi=110, facecolor="white")


def pareto(rows: list[Row], file: Path) -> None:
    """Errors over size and over time, a number for each precision; the best ones are joined.

    What has more than 1.3 times the usual errors stands at the upper edge, with its own.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    pyplot.rcParams.update({"font.size": 12, "text.color": "#222222"})
    figure, both = pyplot.subplots(1, 2, figsize=(14.5, 5.5), sharey=True)
    spoken = [kind for kind in rows[0].errors if kind not in CAPTIONED]
    wrong = [sum(one.errors[kind] for kind in spoken) / len(spoken) for one in rows[1:]]
    edge = 1.3 * sorted(wrong)[len(wrong) // 2]
    across = ([one.bytes / 1e6 for one in rows[1:]], [1e3 * o.seconds_a_clip for o in rows[1:]])
    for axes, costs, unit in zip(both, across, ("MB of artifacts", "ms a clip"), strict=True):
        points = list(zip(costs, wrong, strict=True))
        best = [
            (x, y)
            for x, y in sorted(points)
            if not any(a <= x and b <= y and (a, b) != (x, y) for a, b in points)
        ]
        axes.plot(*zip(*best, strict=True), color="#b2b2b2", linewidth=1.5, zorder=1)
        shown = [(x, min(y, edge)) for x, y in points]
        for number, (x, y) in enumerate(shown):
            axes.plot(x, y, "o", color="#0072b2", alpha=0.4, markersize=7, markeredgewidth=0)
            above = points[number][1]
            text = f"{number + 1}" + (f" ({above:.0f} %)" if above > edge else "")
            place = _beside(shown, number)
            axes.annotate(text, (x, y), place, textcoords="offset points", fontsize=10)
        axes.set_xlabel(unit)
        axes.margins(x=0.12, y=0.12)
        axes.spines[["top", "right"]].set_visible(False)
    both[0].set_ylabel("percent of words wrong, mean of four kinds")
    both[0].set_title("What a lever costs and saves", loc="left", weight="bold")
    names = [f"{number}  {one.precision}" for number, one in enumerate(rows[1:], 1)]
    figure.text(0.8, 0.5, "\n".join(names), va="center", linespacing=1.6)
    figure.tight_layout(rect=(0, 0, 0.79, 1))
    figure.savefig(file, dpi=110, facecolor="white")


def _beside(points: list[tuple[float, float]], number: int) -> tuple[float, float]:
    """Where the label of a point goes, in points of print: those of near ones stand around them."""
    spans = [max(max(axis) - min(axis), 1e-9) for axis in zip(*points, strict=True)]
    x, y = points[number]
    near = sum(
        abs(a - x) / spans[0] < 0.05 and abs(b - y) / spans[1] < 0.12 for a, b in points[:number]
    )
    angle = math.radians((45, -60, 135, -120, 90, 0, 180, -90)[near % 8])
    return 15 * math.cos(angle) - 4, 13 * math.sin(angle) - 4
