"""Will a model fit a device, and how fast will it be: predicted from the manifest alone.

The formulas, where they come from and what the error bars mean: docs/plan.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from alm import devices
from alm.artifacts.manifest import check_run
from alm.artifacts.manifest import load as load_manifest
from alm.parsing import numbers
from alm.plan.planner import Planned
from alm.version import __version__

SECONDS = (10.0, 30.0)
LEAST, LONGEST = 0.01, 24 * 3600.0  # seconds of a clip


def predict(
    folder: Path, device: str, seconds: Sequence[float] = SECONDS, context: int = 0
) -> dict[str, Any]:
    """What a model will need on a device and how fast it will be there.

    Args:
        folder: what export.py wrote; only its manifest is read.
        device: one of `devices.known()`.
        seconds: lengths of clips.
        context: positions in the cache when a token is timed and memory is counted; 0 is the prompt
            and the longest answer.

    Returns:
        Plain data: device, model, choices (that of the folder first, then each precision that can
        be built for the device), parts (those before the decoder, as they are offered), notes.
        Times are milliseconds and predicted, sizes bytes; what has an error bar is an object of
        `value`, `least` and `most`.

    Raises:
        UnknownName, BadOption: no such device, a context beyond the model's.
        MissingFile, BadArtifacts: no manifest, or one that lacks something.
    """
    known = devices.device(device)
    manifest = load_manifest(folder)
    check_run(manifest, folder)
    planned = Planned(manifest, folder, known, tuple(seconds), context)
    choices = [planned.choice(choice) for choice in planned.choices()]
    return {
        "format": "alm-plan",
        "format_version": 1,
        "alm_edge": __version__,
        "device": {
            "name": device,
            "title": known.title,
            "memory": known.memory,
            "usable": known.usable,
            "source": known.source,
            "targets": list(known.targets),
        },
        "model": planned.about(),
        "choices": choices,
        "parts": planned.parts(),
        "notes": planned.notes(),
    }


def read_seconds(words: str) -> tuple[float, ...]:
    """Lengths of clips as a command line has them, "10,30"; BadOption when they are none."""
    return numbers(words, "seconds", float, LEAST, LONGEST)
