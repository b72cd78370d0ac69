"""Losses and errors of a training as a picture: python -m demo.curves WORK/log.jsonl curves.png"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

LOSSES = ("words", "sounds", "bridge", "answer")
ERRORS = ("voices", "takes", "stranger", "over", "captions")


def draw(log: Path, picture: Path) -> None:
    """Above the losses, below the errors in percent, stage after stage."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    notes = in_order([json.loads(line) for line in log.read_text("utf-8").splitlines()])
    figure, (above, below) = pyplot.subplots(2, 1, sharex=True, figsize=(9, 7))
    for axes, names in ((above, LOSSES), (below, ERRORS)):
        for name in names:
            points = [(note["at"], note[name]) for note in notes if name in note]
            if points:
                axes.plot(*zip(*points, strict=True), ".-", label=name)
        axes.set_yscale("log")
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    for note in notes:
        if note["first"]:
            for axes in (above, below):
                axes.axvline(note["began"], color="grey", linewidth=0.8)
            above.annotate(note["stage"], (note["began"], 0.95), xycoords=("data", "axes fraction"))
    above.set_ylabel("loss")
    below.set(ylabel="errors on held-out clips, percent", xlabel="step")
    figure.tight_layout()
    figure.savefig(picture, dpi=110)


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
    draw(Path(sys.argv[1]), Path(sys.argv[2]))
