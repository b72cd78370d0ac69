"""A graph as TensorRT wants it, made of the one that ONNX Runtime wants: two small changes.

- The room of a cache is a number: TensorRT's KV cache has no dynamic length.
- An Attention for which there is no fused kernel may be done by several: TRT_decomposable=1, an
  attribute that ONNX Runtime refuses.

All else is copied byte by byte; weights in files of their own stay there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from alm.onnxfile.wire import Span, Wire

# Numbers of fields in onnx.proto.
GRAPH, NODE, VALUES = 7, 1, (11, 12, 13)  # inputs, outputs, and what lies between
TYPE, TENSOR, SHAPE, AXIS, AXIS_NUMBER, AXIS_NAME = 2, 1, 2, 1, 1, 2
OPERATOR, ATTRIBUTE, DOMAIN = 4, 5, 7
NAME, INTEGER, KIND, KIND_IS_INTEGER = 1, 3, 20, 2
DECOMPOSABLE = "TRT_decomposable"

Change = Callable[[Wire, Span], bytes]


def fitted(content: bytes, sizes: Mapping[str, int], subject: str = "the graph") -> bytes:
    """The model `content` with these named axes made numbers and its Attention nodes decomposable.

    Raises:
        BadArtifacts: it is no ONNX model; `subject` is what the message calls it.
    """

    def axis(wire: Wire, span: Span) -> bytes:
        for number, start, end in wire.fields(span):
            name = wire.text((start, end)) if number == AXIS_NAME and end >= 0 else ""
            if name in sizes:
                return _field(AXIS_NUMBER, sizes[name])
        return wire.data[span[0] : span[1]]

    value: Change = _into(AXIS, axis)
    for number in (SHAPE, TENSOR, TYPE):
        value = _into(number, value)

    def graph(wire: Wire, span: Span) -> bytes:
        return _rebuilt(wire, span, {NODE: _node} | dict.fromkeys(VALUES, value))

    wire = Wire(subject, content)
    return _rebuilt(wire, (0, len(content)), {GRAPH: graph})


def _node(wire: Wire, span: Span) -> bytes:
    texts = {n: wire.text((a, b)) for n, a, b in wire.only(span, OPERATOR, DOMAIN) if b >= 0}
    same = wire.data[span[0] : span[1]]
    if texts.get(OPERATOR) != "Attention" or texts.get(DOMAIN) or DECOMPOSABLE.encode() in same:
        return same
    attribute = (
        _field(NAME, DECOMPOSABLE.encode()) + _field(INTEGER, 1) + _field(KIND, KIND_IS_INTEGER)
    )
    return same + _field(ATTRIBUTE, attribute)


def _into(number: int, change: Change) -> Change:
    """The change of a message, done to the field of that number in the one around it."""
    return lambda wire, span: _rebuilt(wire, span, {number: change})


def _rebuilt(wire: Wire, span: Span, changes: Mapping[int, Change]) -> bytes:
    """A message anew, its fields in their order."""
    parts: list[bytes] = []
    for number, value, end in wire.fields(span, fixed=True):
        if end == -1:
            parts.append(_field(number, value))
        elif end < 0:  # of fixed size
            kind = 1 if end == -8 else 5
            parts.append(_varint(number << 3 | kind) + wire.data[value : value - end])
        else:
            change = changes.get(number)
            inner = change(wire, (value, end)) if change else wire.data[value:end]
            parts.append(_field(number, inner))
    return b"".join(parts)


def _field(number: int, value: int | bytes) -> bytes:
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value)
    return _varint(number << 3 | 2) + _varint(len(value)) + value


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 127:
        encoded.append(value & 127 | 128)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)
