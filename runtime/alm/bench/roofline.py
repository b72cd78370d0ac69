"""How far a stage is from what the machine could do: its bytes and operations against the clock."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from alm.artifacts.manifest import Part
from alm.cache.audio import batch
from alm.generation.parts import Parts
from alm.live.state import taken
from alm.onnxfile import flops
from alm.parsing import Misshapen
from alm.ports import RANK, is_carried

LOUD = 0.1  # of full scale: the noise from which the encoders' shapes are taken


def roofline(
    parts: Parts, clips: Sequence[Mapping[str, Any]], machine: Mapping[str, Any], notes: list[str]
) -> list[dict[str, Any]]:
    """Of each stage that runs a graph: the least time that its bytes and operations allow.

    Args:
        clips: what was measured; the longest that fits one window is taken.
        machine: its bytes_per_second and operations_per_second.
        notes: gets what a reader must know.

    Returns:
        A row a stage: bytes of weights (and cache) that are read once, operations, the
        milliseconds that each would take alone, which of them is the bound, what was measured,
        and the bound's share of that.
    """
    rules = parts.manifest.facts.audio
    longest = rules.window_samples / rules.rate
    alone = [clip for clip in clips if clip["windows"] == 1 and clip["seconds"] <= longest]
    if not alone:
        notes.append("every clip is longer than the model's window: there is no roofline")
        return []
    clip = max(alone, key=lambda clip: clip["seconds"])
    samples = max(int(clip["seconds"] * rules.rate), rules.least_samples)
    pcm = LOUD * np.random.default_rng(0).standard_normal(samples)
    tensors = parts.pipeline.forward(batch([pcm.astype(np.float32)]))

    def row(stage: str, part: Part, sizes: Mapping[str, int], held: int = 0) -> dict[str, Any]:
        """`held`: bytes besides those of the files."""
        path = parts.folder / part.files[0].name
        operations, unknown = flops.operations(path, sizes)
        if unknown:
            notes.append(
                f"{stage}: {unknown} of its products are guessed, the graph says too little"
            )
        measured = clip["per_token"] if stage == "per_token" else clip["stages"][stage]
        count = part.bytes + held - (idle_bytes(part) if stage == "per_token" else 0)
        return bound(stage, count, operations, machine, measured["p50"])

    rows = [row(part.name, part, sizes_of(part, tensors)) for part in parts.pipeline.parts]
    decoder, prompt, steps = parts.decoder_part, clip["prompt_tokens"], clip["new_tokens"] - 1
    sizes = {"batch": 1, "seq": prompt, "past": 0, "capacity": prompt, "wanted": 1, RANK: 1}
    rows.append(row("prefill", decoder, sizes))
    if steps:
        past = prompt + steps // 2  # of the step in the middle
        sizes = {"batch": 1, "seq": 1, "past": past, "capacity": past, "wanted": 1, RANK: 1}
        rows.append(row("per_token", decoder, sizes, cache_bytes(decoder, past)))
    notes += beyond(rows, machine)
    return rows


def beyond(rows: Sequence[Mapping[str, Any]], machine: Mapping[str, Any]) -> Iterator[str]:
    """Why stages are above 100 %, a sentence for each kind of bound."""
    names = {
        kind: [r["stage"] for r in rows if r["bound"] == kind and (r["reached"] or 0) > 1]
        for kind in ("memory", "compute")
    }
    if names["memory"]:
        yield (
            f"above 100 % of memory's bound ({', '.join(names['memory'])}): the bound is the "
            f"{machine['bytes_per_second'] / 1e9:.1f} GB/s that numpy read for half a second after "
            "the runs beside whatever else ran then, and weights that stay in a cache are not "
            "read again"
        )
    if names["compute"]:
        yield (
            f"above 100 % of computing's bound ({', '.join(names['compute'])}): the bound is "
            "numpy's float32 matrix product, timed for half a second after the runs beside "
            "whatever else ran then; a backend's kernels may be faster, and int8 ones are"
        )


def bound(
    stage: str, count: int, operations: int, machine: Mapping[str, Any], took: float
) -> dict[str, Any]:
    """One row: `count` bytes are read and `operations` done, and it took so many milliseconds."""
    memory_ms = count / machine["bytes_per_second"] * 1e3
    compute_ms = operations / machine["operations_per_second"] * 1e3
    return {
        "stage": stage,
        "bytes": count,
        "operations": operations,
        "memory_ms": memory_ms,
        "compute_ms": compute_ms,
        "bound": "memory" if memory_ms > compute_ms else "compute",
        "measured_ms": took,
        "reached": max(memory_ms, compute_ms) / took if took else None,
    }


def idle_bytes(decoder: Part) -> int:
    """Bytes of experts that a step does not read: a token passes a few of them."""
    weights = decoder.measured.get("weights", 0)
    idle = weights - decoder.measured.get("active_weights", weights)
    return round(idle * decoder.storage.layers.bits / 8)


def sizes_of(part: Part, tensors: Mapping[str, np.ndarray]) -> dict[str, int]:
    """The sizes of a part's dynamic axes in these feeds."""
    sizes: dict[str, int] = {RANK: 1} if RANK in part.spans else {}  # without an adapter
    for name in taken(part.inputs):
        port = part.inputs[name]
        pairs = zip(port.axes, tensors[name].shape, strict=True)
        sizes |= {axis: size for axis, size in pairs if isinstance(axis, str)}
    return sizes


def cache_bytes(decoder: Part, positions: int) -> int:
    """Bytes of the KV cache of one row with so many positions.

    Raises:
        Misshapen: an axis or a type of it is none that a cache has.
    """
    sizes = {"batch": 1, "past": positions, "capacity": positions}
    ports = {name: port for name, port in decoder.inputs.items() if is_carried(name)}
    try:
        kinds = {name: np.dtype(port.dtype).itemsize for name, port in ports.items()}
        return sum(math.prod(port.shape(sizes)) * kinds[name] for name, port in ports.items())
    except (KeyError, TypeError) as error:
        raise Misshapen(f"the cache of part {decoder.name:.80} has no size: {error}") from error
