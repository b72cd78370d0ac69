"""One part that becomes an engine: verified, built in a process of its own, and written."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alm.artifacts import engine_files, verify
from alm.artifacts.engine_files import Engine, Maker, Profile, fingerprint
from alm.artifacts.manifest import File, Part
from alm.host import atomic, user_cache
from alm.onnxfile import summary
from alm.tensorrt import api
from alm.tensorrt.child_process import apart
from alm.tensorrt.graph import fitted

Say = Callable[[str], None]


@dataclass(frozen=True)
class Job:
    """One part that is to be built."""

    part: Part
    graph: Path
    target: str  # the engine's name in the folder
    profiles: tuple[Profile, ...]
    fixed: dict[str, int]  # axes with a name that get a size
    memory: int  # bytes that the build is thought to take

    def content(self) -> bytes:
        """The graph as TensorRT wants it."""
        return fitted(self.graph.read_bytes(), self.fixed, str(self.graph))


def built(folder: Path, job: Job, maker: Maker, limits: api.Limits, say: Say) -> Engine:
    """Build one part in a process of its own; its engine is written whole or not at all.

    Raises:
        BadArtifacts, MissingFile: the part is not what the manifest says, TensorRT does not take
            it, or TensorRT's process crashed or was ended.
    """
    subject = f"building part {job.part.name}"
    try:
        plain = apart(build_here, folder, job, maker, limits, say=say, subject=subject)
    finally:  # a process that was killed removes nothing
        for left in atomic.leftovers(folder / job.target):
            left.unlink(missing_ok=True)
    return engine_files.from_json(plain, 0)


def build_here(
    folder: Path, job: Job, maker: Maker, limits: api.Limits, say: Say
) -> dict[str, Any]:
    """Build one part in this process; returns its engine's entry of the manifest."""
    start = time.perf_counter()
    say("verifying")
    files = [verify.check_file(folder, f.name, f.bytes, f.sha256) for f in job.part.files]
    listed = {file.name for file in job.part.files}
    verify.check_graph(folder, summary.read(files[0]), job.part.files[0].name, listed)
    timings = _timings_name(maker)
    known = user_cache.read(timings, user_cache.MOST_TIMINGS)
    result = api.build(maker.backend, job.content(), job.graph, job.profiles, limits, known, say)
    if result.timings:
        user_cache.write(timings, result.timings)
    say("writing the engine")
    atomic.write(folder, job.target, result.plan)
    return Engine(
        part=job.part.name,
        file=File(job.target, len(result.plan), hashlib.sha256(result.plan).hexdigest()),
        graph=fingerprint(job.part.files),
        maker=maker,
        profiles=job.profiles,
        fixed=job.fixed,
        seconds=round(time.perf_counter() - start, 1),
    ).to_json()


def _timings_name(maker: Maker) -> str:
    """Of this TensorRT on this GPU, in the user's own folder: nobody else shall write it."""
    return f"{maker.backend}-{maker.version}-{maker.compute_capability or 'any'}.timings"
