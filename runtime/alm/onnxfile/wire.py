"""Protobuf's wire format, walked in a mapped file: what is not asked for is stepped over."""

from __future__ import annotations

from collections.abc import Iterator
from mmap import mmap
from typing import NoReturn

from alm.errors import BadArtifacts

LONGEST = 2**16  # bytes of a name
MOST_FIELDS = 10_000_000  # about 10 s; a 70B model's graph has fewer than a million
VARINT, BYTES = 0, 2
FIXED = {1: 8, 5: 4}  # bytes

Span = tuple[int, int]  # start and end of a message in the file
# Number, value (of bytes: their start), end (of a number: -1; of one of fixed size: minus its size,
# and the value is where it starts).
Field = tuple[int, int, int]


class Wire:
    """Messages in `data`; whatever the bytes are, BadArtifacts about `subject` or a result."""

    def __init__(self, subject: str, data: mmap | bytes) -> None:
        self.subject, self.data = subject, data
        self.fields_left = MOST_FIELDS

    def text(self, span: Span) -> str:
        start, end = span
        if not 0 <= end - start <= LONGEST:
            self.fail(f"a name at byte {start} is longer than {LONGEST} bytes, or no text")
        try:
            return self.data[start:end].decode()
        except UnicodeDecodeError:
            self.fail(f"the name at byte {start} is not UTF-8")

    def packed(self, span: Span) -> Iterator[int]:
        at, end = span
        while at < end:
            value, at = self.varint(at, end)
            self.count()
            yield value

    def count(self) -> None:
        """One more field: so many are no graph, and walking them all would look like a hang."""
        self.fields_left -= 1
        if self.fields_left < 0:
            self.fail(f"it has more than {MOST_FIELDS} fields")

    def only(self, span: Span, *numbers: int) -> Iterator[Field]:
        """The fields with these numbers, each of which holds bytes."""
        for item in self.fields(span):
            if item[0] in numbers:
                yield item

    def fields(
        self, span: Span, once: tuple[int, ...] = (), fixed: bool = False
    ) -> Iterator[Field]:
        """The message's fields; numbers of fixed size, which are floats, only if they are wanted.

        Protobuf merges a message that comes twice; those of `once` may not, since a tensor could
        hide its place by stating it in two halves.
        """
        at, end = span
        if end < 0:
            self.fail("a number stands where a message should be")
        seen: set[int] = set()
        while at < end:
            key, at = self.varint(at, end)
            number, wire = key >> 3, key & 7
            self.count()
            if number in once:
                if number in seen:
                    self.fail(f"field {number} stands twice in the message before byte {at}")
                seen.add(number)
            if wire == VARINT:
                value, at = self.varint(at, end)
                yield number, value, -1
                continue
            size, at = self.varint(at, end) if wire == BYTES else (FIXED.get(wire, -1), at)
            if size < 0 or number == 0:
                self.fail(f"byte {at} begins no field of a protobuf message")
            if size > end - at:
                self.fail(f"the field at byte {at} says {size} bytes and {end - at} are left")
            if wire == BYTES or fixed:
                yield number, at, at + size if wire == BYTES else -size
            at += size

    def varint(self, at: int, end: int) -> tuple[int, int]:
        data, value, shift = self.data, 0, 0
        while at < end and shift < 70:
            byte = data[at]
            at += 1
            value |= (byte & 127) << shift
            if byte < 128:
                return value & 0xFFFFFFFFFFFFFFFF, at
            shift += 7
        self.fail(f"the number before byte {at} has no end")

    def fail(self, why: str) -> NoReturn:
        raise BadArtifacts(f"{self.subject}: {why}")
