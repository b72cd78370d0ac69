"""Golden vectors of a part: inputs that are small to keep, and some of the original's outputs.

The file is a safetensors one. `input.NAME` holds the first values of a port's tensor: where they
are fewer than its shape wants, they begin again, as `numpy.resize` has it. `output.NAME` holds
every `stride`th value of what the original gave, flattened row by row, in float32. The text
`golden` of the metadata is JSON: shapes and types of the inputs, and of each output its shape, the
stride, and by how much the part's own graph was off when it was exported.
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from alm.artifacts import safetensors, verify
from alm.errors import BadArtifacts
from alm.parsing import File, Misshapen, count, is_a, need, parse
from alm.ports import Port

MOST_BYTES = 4 * 2**20  # of a file
MOST_ELEMENTS = 2**26  # of a tensor, and of all inputs that are made of it
MOST_WORST = 1e6
KEY = "golden"
KINDS = {"F32": "<f4", "F16": "<f2"} | safetensors.INTEGERS
SLACK = 1e-3  # what a float32 graph may be off, of the largest value where that is above 1
MORE = 1.5  # as much as at export, and half of it: a rounding falls the other way elsewhere


@dataclass(frozen=True)
class Wanted:
    """An output of the original, some of its values, and how far the exported graph was off."""

    shape: tuple[int, ...]
    stride: int
    values: np.ndarray  # float32, every stride-th of the flattened output
    worst: float  # the largest error, at export
    rms: float  # root mean square of the errors over that of the values, at export


@dataclass(frozen=True)
class Vectors:
    """What a part is fed, and what it should give."""

    inputs: dict[str, np.ndarray]
    outputs: dict[str, Wanted]


@dataclass(frozen=True)
class Off:
    """How far an output is from the original's, and how far it may be."""

    output: str
    worst: float  # inf where the output has another shape or holds what is not finite
    allowed: float
    rms: float
    allowed_rms: float

    @property
    def good(self) -> bool:
        """Whether both are allowed."""
        return self.worst <= self.allowed and self.rms <= self.allowed_rms


def read(folder: Path, file: File, ports: Mapping[str, Port], given: Collection[str]) -> Vectors:
    """The golden vectors of a part whose inputs are `ports` and whose outputs are `given`.

    Raises:
        MissingFile, BadArtifacts: the file is not the manifest's, or does not fit the part.
    """
    where = f"{file.name!r} in {folder}"
    data = verify.content(folder, file, MOST_BYTES)
    stream = io.BytesIO(data)
    stored = safetensors.header(stream, len(data), where, KINDS)
    try:
        said = parse(need(safetensors.metadata(stream, len(data), where), KEY, str))
        arrays = {name: safetensors.read(stream, at, where) for name, at in stored.items()}
        inputs = need(said, "inputs", dict)
        outputs = need(said, "outputs", dict)
        if not outputs or not outputs.keys() <= {*given}:
            raise Misshapen("it has no outputs, or others than the part")
        if sum(math.prod(_shape(n, inputs[n])) for n in inputs) > MOST_ELEMENTS:
            raise Misshapen(f"its inputs have more than {MOST_ELEMENTS} values")
        fed = {n: _input(n, inputs[n], arrays, ports.get(n)) for n in inputs}
        if lacks := sorted(ports.keys() - fed.keys()):
            raise Misshapen(f"it has nothing for {', '.join(lacks)}")
        return Vectors(fed, {n: _output(n, outputs[n], arrays) for n in outputs})
    except (Misshapen, ValueError, RecursionError) as error:
        raise BadArtifacts(f"{where} holds no golden vectors: {error}") from error


def encode(
    inputs: Mapping[str, np.ndarray],
    outputs: Mapping[str, Wanted],
    kept: Mapping[str, np.ndarray],
) -> bytes:
    """The file: `kept` are the first values of each input, enough to make it of."""
    said = {
        "inputs": {n: {"dtype": str(a.dtype), "shape": list(a.shape)} for n, a in inputs.items()},
        "outputs": {
            n: {"shape": list(w.shape), "stride": w.stride, "worst": w.worst, "rms": w.rms}
            for n, w in outputs.items()
        },
    }
    tensors = {f"input.{name}": array for name, array in kept.items()}
    tensors |= {f"output.{name}": wanted.values for name, wanted in outputs.items()}
    return safetensors.encoded(tensors, {KEY: json.dumps(said)})


def compare(
    vectors: Vectors,
    ports: Mapping[str, Port],
    got: Mapping[str, np.ndarray],
    slack: float = SLACK,
    bound: float = 0.0,
) -> list[Off]:
    """How far outputs are from the original's.

    Args:
        vectors: what was fed, and what the original gave.
        ports: the part's outputs.
        got: what the part gave here.
        slack: what may be added to the errors at export, as a share of the values.
        bound: what the root mean square may come to in any case.
    """
    return [
        _off(name, wanted, filled(got[name], ports[name], vectors.inputs), slack, bound)
        for name, wanted in vectors.outputs.items()
    ]


def filled(array: np.ndarray, port: Port, fed: Mapping[str, np.ndarray]) -> np.ndarray:
    """The slots of a fixed capacity that hold something: what is in the others has no meaning."""
    counted = [fed[name] for name in ("past_lengths", "seq_lengths") if name in fed]
    rows = [count.shape for count in counted] == [array.shape[:1]] * 2
    if "capacity" not in port.axes or array.ndim != len(port.axes) or not rows:
        return array
    axis = port.axes.index("capacity")
    lengths = counted[0] + counted[1]
    shape = [1] * array.ndim
    shape[0], shape[axis] = len(array), array.shape[axis]
    used = np.arange(array.shape[axis])[None] < lengths[:, None]
    return np.where(used.reshape(shape), array, 0)


def errors(got: np.ndarray, want: np.ndarray) -> tuple[float, float]:
    """The largest error, and the root mean square of all over that of what was wanted."""
    if not np.isfinite(got).all():
        return math.inf, math.inf
    off = np.abs(got.astype(np.float64) - want)
    size = float(np.square(want.astype(np.float64)).sum())
    square = float(np.square(off).sum())
    return float(off.max(initial=0.0)), math.sqrt(square / max(size, 1e-60)) if square else 0.0


def _off(name: str, wanted: Wanted, got: np.ndarray, slack: float, bound: float) -> Off:
    size = max(1.0, float(np.abs(wanted.values).max(initial=0.0)))
    allowed = MORE * wanted.worst + slack * size
    allowed_rms = max(MORE * wanted.rms + slack, bound)
    if got.shape != wanted.shape:
        return Off(name, math.inf, allowed, math.inf, allowed_rms)
    worst, rms = errors(got.reshape(-1)[:: wanted.stride], wanted.values)
    if bound > MORE * wanted.rms + slack:  # of another precision than at export
        allowed = max(allowed, bound * size)
    return Off(name, worst, allowed, rms, allowed_rms)


def _input(name: str, said: Any, arrays: Mapping[str, np.ndarray], port: Port | None) -> np.ndarray:
    """A port's whole tensor."""
    kept = arrays.get(f"input.{name}")
    if kept is None or port is None:
        raise Misshapen(f"{name:.80} is no input of the part with values")
    shape = _shape(name, said)
    fits = len(shape) == len(port.axes) and all(
        not isinstance(axis, int) or axis == size
        for axis, size in zip(port.axes, shape, strict=True)
    )
    if not fits or said.get("dtype") != port.dtype:
        raise Misshapen(f"{name:.80} is {said!r:.80}, and the part takes {port.to_json()}")
    if not kept.size and math.prod(shape):
        raise Misshapen(f"{name:.80} has no values")
    try:
        kind = np.dtype(port.dtype)
    except TypeError:
        raise Misshapen(f"{name:.80} is of {port.dtype}, which numpy does not have") from None
    if kept.dtype.kind == "f" and kind.kind != "f":
        raise Misshapen(f"{name:.80} is of {port.dtype}, and its values are of {kept.dtype}")
    with np.errstate(over="ignore"):
        return np.resize(kept.astype(kind), shape)


def _output(name: str, said: Any, arrays: Mapping[str, np.ndarray]) -> Wanted:
    shape, stride = _shape(name, said), count(said, "stride", 1)
    values = arrays.get(f"output.{name}")
    there = -(-math.prod(shape) // stride)
    if values is None or values.shape != (there,):
        raise Misshapen(f"{name:.80} wants {there} values")
    worst, rms = (float(need(said, key, (int, float))) for key in ("worst", "rms"))
    if not (0 <= worst <= MOST_WORST and 0 <= rms <= MOST_WORST):
        raise Misshapen(f"the errors of {name:.80} at export are {worst!r:.40} and {rms!r:.40}")
    return Wanted(shape, stride, values, worst, rms)


def _shape(name: str, said: Any) -> tuple[int, ...]:
    shape: Any = need(said, "shape", list, where=f"{name:.80}")
    if not all(is_a(n, int) and 0 <= n <= MOST_ELEMENTS for n in shape):
        raise Misshapen(f"{name:.80} has the shape {shape!r:.80}")
    if len(shape) > safetensors.MOST_AXES or math.prod(shape) > MOST_ELEMENTS:
        raise Misshapen(f"{name:.80} of {shape!r:.80} is too large")
    return tuple(shape)
