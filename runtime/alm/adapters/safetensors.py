"""A safetensors file in numpy: its header is checked before anything of its sizes is allocated.

Format: 8 bytes, little endian, that count the header's; the header, a JSON object of name ->
{dtype, shape, data_offsets}; the tensors' bytes (github.com/huggingface/safetensors).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import IO, Any

import numpy as np

from alm.errors import BadArtifacts
from alm.parsing import Misshapen, is_a, parse

MOST_HEADER = 16 * 2**20  # bytes; that of 1000 tensors is 100 KB
MOST_AXES = 8
DTYPES = {"F32": "<f4", "F16": "<f2", "BF16": "<u2"}  # BF16: the upper half of a float32
METADATA = "__metadata__"


@dataclass(frozen=True)
class Stored:
    """Where a tensor lies, and as what."""

    dtype: str
    shape: tuple[int, ...]
    start: int  # in the file


def header(stream: IO[bytes], size: int, where: str) -> dict[str, Stored]:
    """The tensors of an open file of `size` bytes, by name; no other byte is read.

    Raises:
        BadArtifacts: it is no safetensors file, or a tensor lies outside of it, or is of no float
            that is known here.
    """
    try:
        stream.seek(0)
        length = int.from_bytes(stream.read(8), "little")
        if not 2 <= length <= min(MOST_HEADER, size - 8):
            raise Misshapen(f"its header of {length} bytes does not fit into {size}")
        plain = parse(stream.read(length).decode("utf-8"))
        if not isinstance(plain, dict):
            raise Misshapen("its header is no object")
        begin = 8 + length
        return {n: _stored(e, n, begin, size) for n, e in plain.items() if n != METADATA}
    except Misshapen as error:
        raise BadArtifacts(f"{where} is no safetensors file that can be read: {error}") from error
    except (ValueError, RecursionError) as error:
        raise BadArtifacts(f"{where} is no safetensors file: its header is no JSON") from error


def _stored(entry: Any, name: str, begin: int, size: int) -> Stored:
    if not isinstance(entry, dict):
        raise Misshapen(f"the entry of {name!r:.80} is no object")
    shape: Any = entry.get("shape")
    offsets: Any = entry.get("data_offsets")
    dtype = entry.get("dtype")
    if dtype not in DTYPES:
        raise Misshapen(f"{name:.80} is of {dtype!r:.40}; known are {', '.join(DTYPES)}")
    if not _counts(shape) or len(shape) > MOST_AXES:
        raise Misshapen(f"{name:.80} has the shape {shape!r:.80}")
    if not _counts(offsets) or len(offsets) != 2:
        raise Misshapen(f"{name:.80} has the offsets {offsets!r:.80}")
    start, stop = (begin + int(n) for n in offsets)
    count = math.prod(shape) * np.dtype(DTYPES[dtype]).itemsize
    if not begin <= start <= stop <= size or stop - start != count:
        raise Misshapen(f"{name:.80} of {shape!r:.80} lies from byte {start} to {stop} of {size}")
    return Stored(dtype, tuple(shape), start)


def _counts(value: Any) -> bool:
    return isinstance(value, list) and all(is_a(n, int) and 0 <= n < 2**48 for n in value)


def read(stream: IO[bytes], stored: Stored, where: str) -> np.ndarray:
    """A tensor's values, float32.

    Raises:
        BadArtifacts: the file ends before it does, or holds what is not finite.
    """
    kind = np.dtype(DTYPES[stored.dtype])
    count = math.prod(stored.shape)
    stream.seek(stored.start)
    data = stream.read(count * kind.itemsize)
    if len(data) != count * kind.itemsize:
        raise BadArtifacts(f"{where} ended while it was read; copy it again")
    values = np.frombuffer(data, kind)
    if stored.dtype == "BF16":
        values = (values.astype(np.uint32) << 16).view(np.float32)
    values = values.astype(np.float32, copy=False).reshape(stored.shape)
    if not np.isfinite(values).all():
        raise BadArtifacts(f"{where} holds values that are not finite")
    return values
