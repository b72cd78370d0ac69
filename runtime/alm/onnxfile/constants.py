"""The values of a constant, read from the graph's file or from the one beside it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from alm.errors import BadArtifacts
from alm.host import containment
from alm.onnxfile.graph_nodes import Tensor
from alm.onnxfile.wire import Wire
from alm.parsing import check_name

MOST_BYTES = 2**28  # of zero points or scales: those of a 70B head are a tenth of it
RAW, FLOATS, DOUBLES = 9, 4, 10  # fields of TensorProto that hold bytes as they are
PLAIN = {
    "float32": "<f4", "float64": "<f8", "float16": "<f2", "bfloat16": "<u2", "int8": "i1",
    "uint8": "u1", "bool": "u1", "int16": "<i2", "uint16": "<u2", "int32": "<i4", "int64": "<i8",
    "uint32": "<u4", "uint64": "<u8", "int4": "u1", "uint4": "u1",
}  # fmt: skip


def read(path: Path, tensor: Tensor) -> np.ndarray | None:
    """All values of `tensor` of the graph in `path`, flat; None for a type that is not known here.

    Raises:
        MissingFile, BadArtifacts: they are not where the graph says, or not as many.
    """
    if tensor.dtype not in PLAIN:
        return None
    if tensor.outside is not None:
        place = tensor.outside
        data = _bytes(_beside(path, place.location), place.offset, place.length, tensor)
    else:
        data = b"".join(_inline(path, tensor))
    values: Any = np.frombuffer(
        data[: len(data) // _width(tensor) * _width(tensor)], _dtype(tensor)
    )
    if tensor.dtype == "bfloat16":
        values = (values.astype(np.uint32) << 16).view(np.float32)
    count = math.prod(tensor.dims)
    if tensor.dtype in ("int4", "uint4"):  # two to a byte, the first below
        values = np.stack((values & 15, values >> 4), 1).reshape(-1)[:count]
        if tensor.dtype == "int4":
            values = (values.astype(np.int8) ^ 8) - 8
    if len(values) != count:
        raise BadArtifacts(
            f"tensor {tensor.name!r} of {path} has {len(values)} values and its shape says {count}"
        )
    return values


def _dtype(tensor: Tensor) -> str:
    return PLAIN[tensor.dtype]


def _width(tensor: Tensor) -> int:
    return np.dtype(_dtype(tensor)).itemsize


def _beside(path: Path, location: str) -> Path:
    check_name(location)
    return containment.contained(path.parent, location)


def _bytes(path: Path, start: int, size: int, tensor: Tensor) -> bytes:
    if size > MOST_BYTES:
        raise BadArtifacts(
            f"tensor {tensor.name!r} of {path} has {size} bytes, too many to look at"
        )
    with path.open("rb") as file:
        file.seek(start)
        return file.read(size)


def _inline(path: Path, tensor: Tensor) -> list[bytes]:
    """What the fields hold, as bytes of the tensor's own type."""
    chunks = []
    for number, start, end in tensor.places:
        data = _bytes(path, start, end - start, tensor)
        if number in (RAW, FLOATS, DOUBLES):
            chunks.append(data)
            continue
        # Whole numbers, each as long as it must be; float16 and kin as the number of their bits.
        listed = Wire(f"{path} is not a readable ONNX graph", data).packed((0, len(data)))
        wide = np.array(list(listed), np.uint64)
        chunks.append(wide.astype(f"<u{_width(tensor)}").tobytes())
    return chunks
