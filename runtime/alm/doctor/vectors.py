"""Every part on its golden vectors, with each provider and number of threads."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from alm import backends
from alm.artifacts.embedding_table import open_table
from alm.artifacts.manifest import Manifest, Part
from alm.doctor.finding import LEFT_OUT, NOTE, OK, WRONG, Finding
from alm.errors import AlmError, BadArtifacts
from alm.golden import vectors
from alm.ports import Port
from alm.session import BackendOptions

TIMES = 3  # runs of each part; the median's milliseconds are shown
MOST_IDS = 4096  # of the table: each is a row
ELSEWHERE = 5e-3  # slack of what is no processor: other orders of sums, products of fewer bits

Run = Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]]


@dataclass(frozen=True)
class Way:
    """How parts are run."""

    provider: str
    threads: int
    asked: bool = False  # by name: then a part that it does not take is a fault

    @property
    def name(self) -> str:
        """For people."""
        threads = f", {self.threads} thread{'s' * (self.threads > 1)}" if self.threads else ""
        return f"{self.provider}{threads}"

    @property
    def on_cpu(self) -> bool:
        """Whether it is the processor."""
        return backends.on_cpu(self.provider)


def check(
    folder: Path, manifest: Manifest, way: Way, damaged: set[str], say: Callable[[str], None]
) -> Iterator[Finding]:
    """One finding for each part, in the order of a run; a second one where it is odd."""
    for part in manifest.parts:
        said: dict[str, Any] = {"provider": way.provider, "threads": way.threads}
        if part.role == "table":
            said = {"provider": "numpy"}
        if part.golden is None:
            yield Finding("vectors", part.name, LEFT_OUT, **said, what="exported without golden")
        elif {part.name, f"golden vectors of {part.name}"} & damaged:
            yield Finding("vectors", part.name, LEFT_OUT, **said, what="its files are damaged")
        else:
            say(f"{part.name} on {way.name}")
            yield from _part(folder, manifest, part, way, said)


def _part(
    folder: Path, manifest: Manifest, part: Part, way: Way, said: dict[str, Any]
) -> Iterator[Finding]:
    table = part.role == "table"
    ports = {"ids": Port("int64", ("ids",))} if table else part.inputs
    outputs = {"rows": Port("float32", ("ids", 1))} if table else part.outputs
    assert part.golden is not None
    try:
        kept = vectors.read(folder, part.golden, ports, outputs)
    except AlmError as error:
        again = "export it again"
        yield Finding("vectors", part.name, WRONG, **said, what=str(error), way_out=again)
        return
    try:
        run = _table(folder, part) if table else _graph(folder, part, way)
    except AlmError as error:
        verdict = WRONG if way.asked else LEFT_OUT
        yield Finding("vectors", part.name, verdict, **said, what=str(error), refused=True)
        return
    try:
        first = again = run(kept.inputs)
        took: list[float] = []
        for _ in range(TIMES):
            start = time.perf_counter()
            again = run(kept.inputs)
            took.append(1e3 * (time.perf_counter() - start))
    except AlmError as error:
        yield Finding("vectors", part.name, WRONG, **said, what=str(error), way_out=_advice(way))
        return
    said |= {"ms": statistics.median(took)}
    slack = vectors.SLACK if way.on_cpu or table else ELSEWHERE
    bound = 0.0 if way.on_cpu or table else part.storage.bound
    off = vectors.compare(kept, outputs, first, slack, bound)
    worst = max(off, key=lambda one: (not one.good, one.worst / one.allowed))
    said |= {"worst": worst.worst, "allowed": worst.allowed}
    if not worst.good:
        what = f"{worst.output} is off by {worst.worst:.1e}, {worst.rms:.1e} as root mean square"
        what += f" (allowed {worst.allowed:.1e} and {worst.allowed_rms:.1e})"
        yield Finding("vectors", part.name, WRONG, **said, what=what, way_out=_advice(way))
        return
    yield Finding("vectors", part.name, OK, **said)
    changed = [n for n in first if not np.array_equal(first[n], again[n])]
    if changed:
        most = max(float(np.abs(first[n] - again[n]).max(initial=0)) for n in changed)
        what = f"two runs on the same input differ by {most:.1e} in {changed[0]}"
        yield Finding("determinism", part.name, NOTE, way.provider, way.threads, what=what)


def _graph(folder: Path, part: Part, way: Way) -> Run:
    options = BackendOptions(way.provider, way.threads)
    session = backends.open_session(part, folder, options)
    return lambda inputs: session.run(inputs)


def _table(folder: Path, part: Part) -> Run:
    rows = open_table(folder, part.files)

    def run(inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        if inputs["ids"].size > MOST_IDS:
            raise BadArtifacts(f"its golden vectors have more than {MOST_IDS} ids")
        return {"rows": np.asarray(rows(inputs["ids"]), np.float32)}

    return run


def _advice(way: Way) -> str:
    others = "another --provider, other --threads" if way.provider == "cpu" else "--provider cpu"
    return f"try {others} and another version of the backend; report what alm doctor --json prints"
