"""A safetensors file in numpy: its header is checked before anything of its sizes is allocated.

Format: 8 bytes, little endian, that count the header's; the header, a JSON object of name ->
{dtype, shape, data_offsets}; the tensors' bytes (github.com/huggingface/safetensors).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import IO, Any

import numpy as np

from alm.errors import BadArtifacts
from alm.parsing import Misshapen, is_a, parse

MOST_HEADER = 16 * 2**20  # bytes; that of 1000 tensors is 100 KB
MOST_AXES = 8
FLOATS = {"F32": "<f4", "F16": "<f2", "BF16": "<u2"}  # BF16: the upper half of a float32
INTEGERS = {"I64": "<i8", "I32": "<i4", "I8": "|i1", "U8": "|u1", "BOOL": "|b1"}
DTYPES = FLOATS | INTEGERS
METADATA = "__metadata__"


@dataclass(frozen=True)
class Stored:
    """Where a tensor lies, and as what."""

    dtype: str
    shape: tuple[int, ...]
    start: int  # in the file

    @property
    def bytes(self) -> int:
        """Of all its values."""
        return math.prod(self.shape) * np.dtype(DTYPES[self.dtype]).itemsize


def header(
    stream: IO[bytes], size: int, where: str, known: Mapping[str, str] = FLOATS
) -> dict[str, Stored]:
    """The tensors of an open file of `size` bytes, by name; no other byte is read.

    `known` are the types that tensors may have.

    Raises:
        BadArtifacts: it is no safetensors file, or a tensor lies outside of it, or is of no type
            that is known here, or tensors share bytes: so few could be read as any number.
    """
    begin, plain = _header(stream, size, where)
    try:
        found = {n: _stored(e, n, begin, size, known) for n, e in plain.items() if n != METADATA}
        if sum(stored.bytes for stored in found.values()) > size - begin:
            raise Misshapen("its tensors have more bytes together than there are")
        return found
    except Misshapen as error:
        raise BadArtifacts(f"{where} is no safetensors file that can be read: {error}") from error


def metadata(stream: IO[bytes], size: int, where: str) -> dict[str, str]:
    """The texts beside the tensors; BadArtifacts as `header` has it."""
    said = _header(stream, size, where)[1].get(METADATA, {})
    if not isinstance(said, dict) or not all(isinstance(text, str) for text in said.values()):
        raise BadArtifacts(f"{where} is no safetensors file: its metadata are no texts")
    return said


def _header(stream: IO[bytes], size: int, where: str) -> tuple[int, dict[str, Any]]:
    """Where the tensors begin, and the header's object."""
    try:
        stream.seek(0)
        length = int.from_bytes(stream.read(8), "little")
        if not 2 <= length <= min(MOST_HEADER, size - 8):
            raise Misshapen(f"its header of {length} bytes does not fit into {size}")
        plain = parse(stream.read(length).decode("utf-8"))
        if not isinstance(plain, dict):
            raise Misshapen("its header is no object")
        return 8 + length, plain
    except Misshapen as error:
        raise BadArtifacts(f"{where} is no safetensors file that can be read: {error}") from error
    except (ValueError, RecursionError) as error:
        raise BadArtifacts(f"{where} is no safetensors file: its header is no JSON") from error


def _stored(entry: Any, name: str, begin: int, size: int, known: Mapping[str, str]) -> Stored:
    if not isinstance(entry, dict):
        raise Misshapen(f"the entry of {name!r:.80} is no object")
    shape: Any = entry.get("shape")
    offsets: Any = entry.get("data_offsets")
    dtype: Any = entry.get("dtype")
    if not isinstance(dtype, str) or dtype not in known:
        raise Misshapen(f"{name:.80} is of {dtype!r:.40}; known are {', '.join(known)}")
    if not _counts(shape) or len(shape) > MOST_AXES:
        raise Misshapen(f"{name:.80} has the shape {shape!r:.80}")
    if not _counts(offsets) or len(offsets) != 2:
        raise Misshapen(f"{name:.80} has the offsets {offsets!r:.80}")
    start, stop = (begin + int(n) for n in offsets)
    stored = Stored(dtype, tuple(shape), start)
    if not begin <= start <= stop <= size or stop - start != stored.bytes:
        raise Misshapen(f"{name:.80} of {shape!r:.80} lies from byte {start} to {stop} of {size}")
    return stored


def _counts(value: Any) -> bool:
    return isinstance(value, list) and all(is_a(n, int) and 0 <= n < 2**48 for n in value)


def read(stream: IO[bytes], stored: Stored, where: str) -> np.ndarray:
    """A tensor's values, float32; of integers, as they are.

    Raises:
        BadArtifacts: the file ends before it does, or holds what is not finite.
    """
    kind = np.dtype(DTYPES[stored.dtype])
    stream.seek(stored.start)
    data = stream.read(stored.bytes)
    if len(data) != stored.bytes:
        raise BadArtifacts(f"{where} ended while it was read; copy it again")
    values = np.frombuffer(data, kind).reshape(stored.shape)
    if stored.dtype in INTEGERS:
        return values
    if stored.dtype == "BF16":
        values = (values.astype(np.uint32) << 16).view(np.float32)
    values = values.astype(np.float32, copy=False)
    if not np.isfinite(values).all():
        raise BadArtifacts(f"{where} holds values that are not finite")
    return values


def encoded(tensors: Mapping[str, np.ndarray], texts: Mapping[str, str]) -> bytes:
    """A safetensors file of these arrays, and of texts as its metadata; the same for the same."""
    names = {np.dtype(kind): name for name, kind in DTYPES.items() if name != "BF16"}
    plain: dict[str, Any] = {METADATA: dict(texts)} if texts else {}
    at = 0
    for name, array in tensors.items():
        entry = {"dtype": names[array.dtype], "shape": list(array.shape)}
        plain[name] = entry | {"data_offsets": [at, at + array.nbytes]}
        at += array.nbytes
    head = json.dumps(plain, ensure_ascii=False, separators=(",", ":")).encode()
    head += b" " * (-len(head) % 8)  # tensors begin at a multiple of 8
    body = b"".join(np.ascontiguousarray(array).tobytes() for array in tensors.values())
    return len(head).to_bytes(8, "little") + head + body
