"""Losses and errors of a training as a picture: python -m demo.curves [LOG] [PICTURE]

LOG is WORK/log.jsonl of a training. Without one, demo/curves.jsonl is drawn: the log of the demo
model's training was not kept, so those are the points of its first picture, read back from the
pixels (within 2 %; points that another curve hid are missing).
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
# Told apart also by those who see red and green alike (Okabe and Ito).
LOSSES = {
    "words": ("word at each 20 ms", "#0072b2"),
    "sounds": ("sound at each 160 ms", "#b87800"),
    "bridge": ("Q-Former's directions", "#007a59"),
    "answer": ("text of the answer", "#b3478f"),
}
ERRORS = {
    "stranger": ("digits, a speaker never heard", "#007a59"),
    "over": ("new voices over a sound", "#b3478f"),
    "voices": ("new espeak-ng voices", "#0072b2"),
    "takes": ("digits, new takes", "#b87800"),
    "captions": ("captions", "#444444"),
}
BAND = "#eef1f4"  # behind every other stage
INK = "#222222"
GAP = 1000  # steps without a point over which no line is drawn


def draw(log: Path, picture: Path) -> None:
    """Above the losses, below the errors in percent, stage after stage."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    notes = in_order([json.loads(line) for line in log.read_text("utf-8").splitlines()])
    pyplot.rcParams.update({"font.size": 13, "text.color": INK, "axes.labelcolor": INK})
    figure, (above, below) = pyplot.subplots(2, 1, sharex=True, figsize=(11, 9.5))
    for axes, curves in ((above, LOSSES), (below, ERRORS)):
        _curves(axes, notes, curves)
        _stages(axes, notes, named=axes is above)
        axes.grid(axis="y", color="#cccccc", linewidth=0.8)
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_xlim(0, max(note["at"] for note in notes) * 1.005)
    above.set_yscale("log")
    above.set_yticks([0.03, 0.1, 0.3, 1], ["0.03", "0.1", "0.3", "1"])
    above.minorticks_off()
    above.set_title("Loss by stage of training (log scale)", loc="left", pad=30, weight="bold")
    below.set_ylim(bottom=0)
    below.set_title("Errors on clips kept out of training, percent", loc="left", weight="bold")
    below.set_xlabel("step")
    figure.tight_layout()
    figure.savefig(picture, dpi=110, facecolor="white")


def _curves(axes: Any, notes: list[dict[str, Any]], curves: dict[str, tuple[str, str]]) -> None:
    """Each with its name beside the plot; where a stage did not measure it there is a gap."""
    for name, (label, colour) in curves.items():
        points: list[tuple[float, float]] = []
        for note in notes:
            if name in note:
                if points and note["at"] - points[-1][0] > GAP:
                    points.append((note["began"], float("nan")))
                points.append((note["at"], note[name]))
        if points:
            axes.plot(*zip(*points, strict=True), "o-", color=colour, ms=4, lw=2, label=label)
    axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False)


def _stages(axes: Any, notes: list[dict[str, Any]], named: bool) -> None:
    """A band behind every other stage, and the names above."""
    starts = [note for note in notes if note["first"]]
    ends = [note["began"] for note in starts[1:]] + [max(note["at"] for note in notes)]
    for number, (note, end) in enumerate(zip(starts, ends, strict=True)):
        if number % 2 == 0:
            axes.axvspan(note["began"], end, color=BAND, zorder=0)
        if named:
            place = ((note["began"] + end) / 2, 1.02)
            axes.annotate(note["stage"], place, xycoords=("data", "axes fraction"), ha="center")


def in_order(notes: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Stages one after the other on one axis; what was done twice after an interruption, once."""
    stages: dict[str, dict[int, dict[str, Any]]] = {}
    for note in notes:
        stages.setdefault(note["stage"], {})[note["step"]] = note
    found, began = [], 0
    for steps in stages.values():
        for count, step in enumerate(sorted(steps)):
            place = {"at": began + step, "began": began, "first": count == 0}
            found.append(steps[step] | place)
        began += max(steps)
    return found


if __name__ == "__main__":
    paths = [Path(word) for word in sys.argv[1:3]]
    draw(*(paths + [HERE / "curves.jsonl", HERE / "curves.png"][len(paths) :]))
