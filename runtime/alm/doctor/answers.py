"""Whole runs: the tokenizer's ids, and the original's answers token by token."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from alm.artifacts.manifest import Manifest
from alm.doctor.finding import LEFT_OUT, NOTE, OK, WRONG, Finding
from alm.doctor.vectors import Way
from alm.errors import AlmError
from alm.generation.parts import Parts
from alm.golden import runs
from alm.parsing import printable
from alm.timings import Stages

SLOW = 3.0  # times as long
DENORMAL = np.float32(1e-39)


def check(
    folder: Path, manifest: Manifest, way: Way, damaged: set[str], say: Callable[[str], None]
) -> Iterator[Finding]:
    """A finding for the tokenizer, and one for each run."""
    said: dict[str, Any] = {"provider": way.provider, "threads": way.threads}
    if damaged:
        what = f"damaged: {', '.join(sorted(damaged))}"
        yield Finding("runs", "whole runs", LEFT_OUT, **said, what=what)
        return
    try:
        kept = runs.read(folder, manifest)
    except AlmError as error:
        again = "export the folder again"
        yield Finding("runs", "whole runs", WRONG, **said, what=str(error), way_out=again)
        return
    if not kept.runs and not kept.texts:
        why = "none were kept: export all parts at once, with golden vectors"
        yield Finding("runs", "whole runs", LEFT_OUT, **said, what=why)
        return
    say(f"whole runs on {way.name}")
    try:
        parts = Parts(folder, way.provider, way.threads, 0)
    except AlmError as error:
        verdict = WRONG if way.asked else LEFT_OUT
        yield Finding("runs", "whole runs", verdict, **said, what=str(error), refused=True)
        return
    yield _tokenizer(parts, kept)
    if not kept.runs:
        what = "none were kept: this model is asked nothing about a clip, or hears a stream"
        yield Finding("runs", "whole runs", LEFT_OUT, **said, what=what)
    for run in kept.runs:
        yield _run(folder, manifest, parts, run, said)
    if kept.runs and way.on_cpu:
        with suppress(AlmError):  # the run itself has said so
            yield from _quiet(runs.clip(folder, manifest, kept.runs[0]), parts, way)


def _quiet(source: bytes, parts: Parts, way: Way) -> Iterator[Finding]:
    """What near silence costs, whose values are too small to be normal numbers."""
    pcm = parts.rules.read(source, runs.MOST_SECONDS, Stages()).pcm
    took: dict[bool, float] = {}
    for small in (False, True) * 3:  # in turns, and the best counts: others may be at work
        start = time.perf_counter()
        parts.audio_encoder.encode([pcm * DENORMAL if small else pcm], Stages())
        ms = 1e3 * (time.perf_counter() - start)
        took[small] = min(took.get(small, ms), ms)
    if took[True] > SLOW * took[False]:
        what = f"a clip at 1e-39 of its level takes {took[True]:.0f} ms, as it is {took[False]:.0f}"
        way_out = "this processor is slow at very small numbers: add noise of 1e-5 to silence"
        said: dict[str, Any] = {"provider": way.provider, "threads": way.threads}
        yield Finding("denormals", "near silence", NOTE, **said, what=what, way_out=way_out)


def _tokenizer(parts: Parts, kept: runs.Runs) -> Finding:
    for text in kept.texts:
        ids = tuple(parts.tokenizer.encode(text.text, add_special_tokens=False).ids)
        if ids != text.ids:
            pairs = enumerate(zip(ids, text.ids, strict=False))
            at = next((i for i, (a, b) in pairs if a != b), min(len(ids), len(text.ids)))
            what = (
                f"{printable(text.text, 60)!r} becomes {len(ids)} ids, the original's are "
                f"{len(text.ids)}; the first that differs is number {at}"
            )
            way_out = "export the folder again; keep tokenizers at the version of the export"
            return Finding("tokenizer", "tokenizer", WRONG, what=what, way_out=way_out)
    return Finding("tokenizer", "tokenizer", OK, what=f"{len(kept.texts)} texts")


def _run(
    folder: Path, manifest: Manifest, parts: Parts, run: runs.Run, said: dict[str, Any]
) -> Finding:
    name = f"{Path(run.clip).name}, {run.prompt}"
    try:
        clip = runs.clip(folder, manifest, run)
        followed = runs.follow(parts, clip, run)
    except AlmError as error:
        return Finding("runs", name, WRONG, **said, what=str(error))
    allowed = runs.allowed(run)
    said = said | {"worst": followed.gap, "allowed": allowed, "ms": followed.ms}
    if followed.length != run.length:
        what = f"the prompt has {followed.length} positions, the original's {run.length}"
        return Finding("runs", name, WRONG, **said, what=what, way_out="export the folder again")
    if not followed.gap <= allowed:
        what = f"token {followed.at} of {len(run.ids)} would have been another"
        way_out = "see which part's vectors are wrong; where none are, report it"
        return Finding("runs", name, WRONG, **said, what=what, way_out=way_out)
    return Finding("runs", name, OK, **said, what=f"{len(run.ids)} tokens as the original's")
