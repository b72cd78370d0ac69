"""Steps of a run on a machine that is lent for minutes: each a process with its share of the time.

A step that fails, dies or is too slow is a row with its error; one that no time is left for is a
row with that reason. The run goes on, and what was found out is on disk after every step.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bench.beside.process import watched

ROOT = Path(__file__).parent.parent.parent
ALM = "import sys; from alm.cli.alm_commands import main; sys.exit(main())"
OK, WRONG, FAILED, SKIPPED = "ok", "wrong", "failed", "skipped"
LEAST = 5.0  # seconds that a step must have
LOOK = 0.5  # seconds between two looks at the GPU's memory
QUERY = ("nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits")


@dataclass
class Row:
    """What became of a step."""

    step: str
    model: str = ""
    provider: str = ""
    verdict: str = OK
    seconds: float = 0.0
    peak_mb: float = 0.0  # of the process
    gpu_mb: float | None = None  # the most that it took beside what was taken before
    why: str = ""
    found: dict[str, Any] = field(default_factory=dict)


@dataclass
class Run:
    """The rows of a run, and the time that is left to it."""

    out: Path  # the JSON file
    seconds: float
    cache: Path  # what the steps may keep
    machine: dict[str, Any] = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)
    started: float = field(default_factory=time.monotonic)
    told: Callable[[str], None] = print

    @property
    def left(self) -> float:
        """Seconds of the whole run that are left."""
        return self.seconds - (time.monotonic() - self.started)

    def step(self, row: Row, words: Sequence[str], most: float, data: Path | None = None) -> bool:
        """Run a Python process of at most so many seconds; whether what follows may build on it.

        Args:
            row: the step, which is filled in and kept.
            words: arguments of this Python.
            most: seconds of the step; less where the run has less.
            data: a JSON file that the process writes, kept as what was found.
        """
        limit = min(most, self.left)
        if limit < LEAST:
            return self.skip(row, f"{max(self.left, 0):.0f} s of {self.seconds:.0f} are left")
        path = os.pathsep.join((str(ROOT / "runtime"), str(ROOT)))
        settings = {"PYTHONPATH": path, "ALM_CACHE": str(self.cache)}
        with _GpuMemory() as memory:
            try:
                ended = watched([sys.executable, *words], settings, limit, ROOT)
            except OSError as error:
                return self._kept(row, FAILED, str(error))
        row.seconds, row.peak_mb, row.gpu_mb = ended.seconds, ended.peak_mb, memory.taken
        if data is not None and data.is_file():
            row.found = json.loads(data.read_text("utf-8"))
        if ended.status == 0:
            return self._kept(row, OK, "")
        judged = WRONG if row.found else FAILED  # a doctor that ends with 1 has written what it saw
        return self._kept(row, judged, ended.last)

    def skip(self, row: Row, why: str) -> bool:
        """Keep a step that is not run, and why."""
        return self._kept(row, SKIPPED, why)

    def _kept(self, row: Row, verdict: str, why: str) -> bool:
        row.verdict, row.why = verdict, why
        self.rows.append(row)
        self.save()
        named = " ".join(filter(None, (row.step, row.model, row.provider)))
        self.told(f"{named}: {verdict}, {row.seconds:.1f} s{', ' + why if why else ''}")
        return verdict == OK

    def save(self) -> None:
        """Write all rows so far."""
        self.out.parent.mkdir(parents=True, exist_ok=True)
        whole = {"machine": self.machine, "seconds": self.seconds - self.left}
        whole |= {"rows": [asdict(row) for row in self.rows]}
        self.out.write_text(json.dumps(whole, indent=1) + "\n", "utf-8")


class _GpuMemory:
    """The GPU's memory while a step runs, as nvidia-smi has it."""

    def __init__(self) -> None:
        self.before, self.most = used_mb(), 0.0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> _GpuMemory:
        if self.before is not None:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        if self._thread.is_alive():
            self._thread.join()

    @property
    def taken(self) -> float | None:
        """Megabytes more than before, at most; None where there is no GPU."""
        return None if self.before is None else max(self.most - self.before, 0.0)

    def _watch(self) -> None:
        while not self._done.wait(LOOK):
            self.most = max(self.most, used_mb() or 0.0)


def used_mb() -> float | None:
    """Megabytes (2^20) that are taken of the first GPU; None where there is none."""
    said = asked(QUERY)
    return float(said[0]) if said and said[0].strip().isdigit() else None


def asked(words: Sequence[str]) -> list[str]:
    """The lines that a command says; none where it is not there or fails."""
    if not shutil.which(words[0]):
        return []
    try:
        said = subprocess.run(words, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    return said.stdout.splitlines()
