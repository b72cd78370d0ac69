"""Many short clips, and alm batch over them: in this process, or in one that may be killed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from alm.cli import alm_commands, exit_status
from tests.runtime.cli.commands import RUNTIME, sound

SHORT = ("--greedy", "--num-beams", "1", "--max-new-tokens", "2")
MAIN = "import sys; from alm.cli.alm_commands import main; sys.exit(main())"


def noises(folder: Path, count: int, seed: int = 3) -> list[Path]:
    """So many clips of noise, of 0.1 to 0.3 s."""
    dice = np.random.default_rng(seed)
    folder.mkdir(exist_ok=True)
    return [
        sound(folder / f"{n:03}.wav", 0.1 * dice.standard_normal(dice.integers(1600, 4800)))
        for n in range(count)
    ]


def batch(*words: str | Path) -> int:
    """Its exit status."""
    return exit_status.run(alm_commands.app, ["batch", *map(str, words)])


def begun(*words: str | Path, **options: Any) -> subprocess.Popen[str]:
    """The same as a process, whose stderr is read."""
    environment = os.environ | {"PYTHONPATH": str(RUNTIME)}
    line = [sys.executable, "-c", MAIN, "batch", *map(str, words)]
    options = {"stderr": subprocess.PIPE, "text": True, "env": environment} | options
    return subprocess.Popen(line, **options)


def read(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.read_text("utf-8").split("\n")[:-1]]


def rows_of(out: Path) -> dict[str, Any]:
    """What is told of each file, but for times and what was remembered; one row each."""
    rows = read(out)
    found = {row["source"]["path"]: row for row in rows}
    assert len(found) == len(rows)
    varying = ("timings_ms", "prefix_tokens", "audio_cached", "file")
    return {path: {n: row[n] for n in row if n not in varying} for path, row in found.items()}


def wait(until: Callable[[], Any], seconds: float = 60.0) -> Any:
    """What `until` gives as soon as it is true."""
    end = time.monotonic() + seconds
    while not (found := until()):
        assert time.monotonic() < end, "nothing came"
        time.sleep(0.005)
    return found


def lines(out: Path) -> int:
    return out.read_bytes().count(b"\n") if out.exists() else 0


def names(paths: Sequence[Path]) -> list[str]:
    return [str(path) for path in paths]
