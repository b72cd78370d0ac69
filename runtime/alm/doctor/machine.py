"""What bug reports are about: versions, threads, memory."""

from __future__ import annotations

import os
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from alm.artifacts.manifest import Manifest
from alm.bench.roofline import cache_bytes
from alm.doctor.finding import NOTE, OK, WRONG, Finding
from alm.host import processor
from alm.parsing import Misshapen

PACKAGES = (
    *("onnxruntime", "onnxruntime-gpu", "openvino", "tokenizers", "numpy", "soundfile", "soxr"),
)
POOLS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
QUOTA = Path("/sys/fs/cgroup/cpu.max")
BUSY = 1.5  # runnable threads a core, above which others take part of the machine
WEIGHTS = 1.15  # what a backend holds of the weights, as a share of their files


def check(manifest: Manifest, threads: int) -> Iterator[Finding]:
    """Versions, threads against cores, memory against what the longest prompt takes."""
    yield _versions(manifest)
    yield _threads(threads)
    yield _memory(manifest)


def _versions(manifest: Manifest) -> Finding:
    there = {}
    for name in PACKAGES:
        try:
            there[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    facts = processor.facts()
    what = ", ".join(f"{name} {version}" for name, version in there.items())
    what = f"{facts['processor']}, {facts['system']}, Python {facts['python']}, {what}"
    made = manifest.tools.get("onnxruntime", "")
    if made and _older(there.get("onnxruntime", made), made):
        way_out = f"it was exported with onnxruntime {made}: pip install -U onnxruntime"
        return Finding("machine", "versions", NOTE, what=what, way_out=way_out)
    return Finding("machine", "versions", OK, what=what)


def _older(here: str, there: str) -> bool:
    def numbers(version: str) -> list[int]:
        return [_number(piece) for piece in version.split(".")[:2]]

    return numbers(here) < numbers(there)


def _threads(threads: int) -> Finding:
    cores, quota = processor.usable_cores(), _quota()
    what = f"{cores} cores" + (f", a quota of {quota:g}" if quota else "")
    way_out, busy = "", os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    if quota and quota < cores and not 0 < threads <= quota:
        most = max(int(quota), 1)
        way_out = f"backends start {cores} threads, which share {quota:g} cores: --threads {most}"
    elif threads > cores:
        way_out = f"{threads} threads share {cores} cores: --threads {cores}"
    elif pools := [name for name in POOLS if _number(os.environ.get(name)) > cores]:
        way_out = f"{pools[0]} asks for more threads than there are cores"
    elif busy > BUSY * cores:
        way_out = f"{busy:.1f} threads of all programs want to run: times are not ours alone"
    return Finding("machine", "threads", NOTE if way_out else OK, what=what, way_out=way_out)


def _number(text: str | None) -> int:
    return int(text) if text and text.isascii() and text.isdigit() and len(text) < 10 else 0


def _quota() -> float | None:
    """Cores that a container may use, as its control group has it; None where there is no limit."""
    try:
        most, period = QUOTA.read_text().split()[:2]
        return None if most == "max" else int(most) / int(period)
    except (OSError, ValueError):
        return None


def _memory(manifest: Manifest) -> Finding:
    """The weights and the cache of the longest context, against what is free."""
    context = manifest.facts.dimensions.context
    weights = sum(part.bytes for part in manifest.parts if part.role != "table") * WEIGHTS
    decoders = manifest.with_role("decoder")
    try:
        cache = cache_bytes(decoders[0], context) if decoders and context else 0
    except Misshapen as error:
        return Finding("machine", "memory", WRONG, what=str(error), way_out="export it again")
    need, free = int(weights + cache), processor.available()
    what = f"{need / 1e9:.2f} GB for the weights and a cache of {context} positions"
    if free is None:
        return Finding("machine", "memory", OK, what=what)
    what += f", {free / 1e9:.2f} GB are free"
    if weights > free:
        way_out = "the weights alone do not fit: export with a lever, see alm plan"
        return Finding("machine", "memory", WRONG, what=what, way_out=way_out)
    if need > free:
        way_out = "keep prompts and answers short, or export a cache of 8 bits"
        return Finding("machine", "memory", NOTE, what=what, way_out=way_out)
    return Finding("machine", "memory", OK, what=what)
