"""Pictures of what levers cost the demo model and save."""

from __future__ import annotations

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
    """Errors over size and over time, a point for each precision; the best ones are joined."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    pyplot.rcParams.update({"font.size": 12, "text.color": "#222222"})
    figure, both = pyplot.subplots(1, 2, figsize=(13, 5.5), sharey=True)
    spoken = [kind for kind in rows[0].errors if kind not in CAPTIONED]
    wrong = [sum(one.errors[kind] for kind in spoken) / len(spoken) for one in rows[1:]]
    across = ([one.bytes / 1e6 for one in rows[1:]], [1e3 * o.seconds_a_clip for o in rows[1:]])
    for axes, costs, unit in zip(both, across, ("MB of artifacts", "ms a clip"), strict=True):
        best = [
            (x, y)
            for x, y in sorted(zip(costs, wrong, strict=True))
            if not any(
                a <= x and b <= y and (a, b) != (x, y) for a, b in zip(costs, wrong, strict=True)
            )
        ]
        axes.plot(*zip(*best, strict=True), color="#b2b2b2", linewidth=1.5, zorder=1)
        axes.scatter(costs, wrong, color="#0072b2", zorder=2)
        for number, (one, x, y) in enumerate(zip(rows[1:], costs, wrong, strict=True)):
            above = 6 if number % 2 else -14
            axes.annotate(one.precision, (x, y), (4, above), textcoords="offset points", fontsize=9)
        axes.set_xlabel(unit)
        axes.margins(x=0.16, y=0.14)
        axes.spines[["top", "right"]].set_visible(False)
    both[0].set_ylabel("percent of words wrong, mean of four kinds")
    both[0].set_title("What a lever costs and saves", loc="left", weight="bold")
    figure.tight_layout()
    figure.savefig(file, dpi=110, facecolor="white")
