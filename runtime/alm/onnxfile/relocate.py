"""A graph whose weights lie in another file than it says: the same bytes with other places.

In an .alm file the weights of a graph are a part of the file that also holds the graph. A backend
that opens files itself is told so: each tensor's `location` becomes that file, and its `offset`
the place in there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from alm.errors import BadArtifacts
from alm.onnxfile import summary
from alm.onnxfile.wire import BYTES, FIXED, VARINT, Span, Wire

GRAPH, INITIALIZER, EXTERNAL = 7, 5, 13  # of ModelProto, GraphProto, TensorProto
KEY, VALUE = 1, 2  # of StringStringEntryProto


def relocated(file: Path, name: str, data: bytes, places: Mapping[str, tuple[str, int]]) -> bytes:
    """The graph `name` of an .alm file, all of whose weights lie where `places` says.

    Raises:
        BadArtifacts: it cannot be read, names a file that is not among the places, or keeps weights
            in a graph within it, where they are not looked for: a backend would open what lies
            beside the .alm file.
    """
    moved = Relocated(f"{name!r:.200} in {file}", data, places).model()
    if summary.Walk(file, moved).model().external - {there for there, _ in places.values()}:
        raise BadArtifacts(
            f"{name!r:.200} in {file} keeps weights in a graph within the graph, and those are not "
            f"found in an .alm file; make a folder: alm unpack {file} DIR"
        )
    return moved


class Relocated(Wire):
    """Bytes of a model, `data`, that are rewritten field by field."""

    def __init__(self, subject: str, data: bytes, places: Mapping[str, tuple[str, int]]) -> None:
        """`places`: the location that a tensor states -> the file it lies in, and from where on."""
        super().__init__(subject, data)
        self.data: bytes = data
        self.places = places

    def model(self) -> bytes:
        """The whole model.

        Raises:
            BadArtifacts: it cannot be read, or names a file that is not among the places.
        """
        whole = (0, len(self.data))
        return self._within(whole, GRAPH, lambda s: self._within(s, INITIALIZER, self._tensor))

    def _within(self, span: Span, wanted: int, rewrite: Callable[[Span], bytes]) -> bytes:
        """The message with the fields of one number rewritten."""
        pieces: list[bytes] = []
        for number, start, end, begin in self._raw(span):
            if end >= 0 and number == wanted:
                pieces.append(_field(number, rewrite((start, end))))
            else:
                pieces.append(self.data[begin : max(start, end)])
        return b"".join(pieces)

    def _tensor(self, span: Span) -> bytes:
        """A tensor, its external data told anew where it has some."""
        pieces, entries = list[bytes](), dict[str, str]()
        for number, start, end, begin in self._raw(span):
            if number == EXTERNAL and end >= 0:
                texts = {KEY: "", VALUE: ""}
                for key, at, stop in self.only((start, end), KEY, VALUE):
                    texts[key] = self.text((at, stop))
                entries[texts[KEY]] = texts[VALUE]
                continue
            pieces.append(self.data[begin : max(start, end)])
        if not entries:
            return self.data[span[0] : span[1]]
        location = entries.get("location", "")
        if location not in self.places:
            self.fail(f"a tensor lies in {location[:80]!r}, which is not among its files")
        file, base = self.places[location]
        offset = entries.get("offset", "0")
        if not (offset.isascii() and offset.isdigit() and len(offset) < 20):
            self.fail(f"a tensor has the offset {offset[:40]!r}")
        entries |= {"location": file, "offset": str(base + int(offset))}
        for key, value in entries.items():
            entry = _field(KEY, key.encode()) + _field(VALUE, value.encode())
            pieces.append(_field(EXTERNAL, entry))
        return b"".join(pieces)

    def _raw(self, span: Span) -> list[tuple[int, int, int, int]]:
        """Fields of a message: number, start and end of the bytes, and where the field begins.

        Of a number the end is -1 and the start is where it ends.
        """
        at, end = span
        found: list[tuple[int, int, int, int]] = []
        while at < end:
            begin = at
            key, at = self.varint(at, end)
            number, wire = key >> 3, key & 7
            self.count()
            if wire == VARINT:
                _, at = self.varint(at, end)
                found.append((number, at, -1, begin))
                continue
            size, at = self.varint(at, end) if wire == BYTES else (FIXED.get(wire, -1), at)
            if size < 0 or size > end - at:
                self.fail(f"byte {at} begins no field of a protobuf message")
            at += size
            found.append(
                (number, at - size, at, begin) if wire == BYTES else (number, at, -1, begin)
            )
        return found


def _field(number: int, data: bytes) -> bytes:
    """A field of bytes."""
    return _varint(number << 3 | BYTES) + _varint(len(data)) + data


def _varint(value: int) -> bytes:
    made = bytearray()
    while value > 127:
        made.append(value & 127 | 128)
        value >>= 7
    return bytes([*made, value])
