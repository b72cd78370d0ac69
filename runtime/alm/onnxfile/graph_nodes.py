"""Every node of a graph with its attributes, constants and types, for the checks of graphs.

As in `summary`: the file may come from anywhere, and payloads stay where they are.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass, field
from functools import partial
from mmap import mmap
from pathlib import Path

from alm.onnxfile import summary
from alm.onnxfile.summary import ANY_RANK, External, GraphFile
from alm.onnxfile.wire import Span
from alm.ports import Port

MOST_NODES = 200_000  # a 70B model's decoder has some 10,000
MOST_NAMES = 1_000_000  # of tensors whose type or value is stated
MOST_AXES = 64  # numpy's own limit
SIGN = 2**63

Place = tuple[int, int, int]  # field of TensorProto that holds values, their start and end


@dataclass(frozen=True)
class Tensor:
    """A constant, whose values lie at `places` of the graph's own file, or `outside`."""

    name: str
    dtype: str
    dims: tuple[int, ...]
    places: tuple[Place, ...] = ()
    outside: External | None = None


Attribute = int | float | str | tuple[int, ...] | tuple[float, ...] | Tensor


@dataclass(frozen=True)
class Node:
    """One operator: "MatMul", and "domain::Op" outside the default domain.

    An input that is left out is "". Of attributes, strings of bytes that are no UTF-8, lists of
    strings, graphs and sparse tensors are not kept. `depth` is 0 in the graph itself and counts
    the graphs that lie around those of a subgraph or function.
    """

    op: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: dict[str, Attribute] = field(default_factory=dict)
    depth: int = 0

    def input(self, number: int) -> str:
        """The name of an input; "" where it is left out."""
        return self.inputs[number] if number < len(self.inputs) else ""

    def number(self, name: str, default: int) -> int:
        """An attribute that is a whole number."""
        value = self.attributes.get(name, default)
        return value if isinstance(value, int) else default


@dataclass(frozen=True)
class Graph:
    """`file`, and all its nodes in their order, those of a subgraph before the node that holds it.

    `constants` are initializers and what Constant nodes give; `types` are stated by inputs,
    outputs, value_info and constants. Names of subgraphs stand among the others.
    """

    file: GraphFile
    nodes: tuple[Node, ...]
    constants: dict[str, Tensor]
    types: dict[str, Port]

    def dtype(self, name: str) -> str:
        """The element type of a tensor; "" where the graph does not say."""
        port = self.types.get(name)
        return "" if port is None or port.dtype == "undefined" else port.dtype

    def axes(self, name: str) -> tuple[int | str, ...] | None:
        """The axes of a tensor; None where the graph does not say."""
        port = self.types.get(name)
        return None if port is None or port.axes == (ANY_RANK,) else port.axes


def read(path: Path | str) -> Graph:
    """The nodes of the graph in `path`; MissingFile, or BadArtifacts when it cannot be read."""
    return summary.mapped(Path(path), partial(_read, Path(path)))


def _read(path: Path, data: mmap | bytes) -> Graph:
    walk = _Nodes(path, data)
    file = walk.model()
    return Graph(file, tuple(walk.node_list), walk.constants, walk.types)


class _Nodes(summary.Walk):
    """Counts as `Walk` does, and keeps the nodes, constants and types."""

    def __init__(self, path: Path, data: mmap | bytes) -> None:
        super().__init__(path, data)
        self.node_list: list[Node] = []
        self.constants: dict[str, Tensor] = {}
        self.types: dict[str, Port] = {}

    def graph(self, span: Span, depth: int) -> tuple[dict[str, Port], dict[str, Port]]:
        for number, value, end in self.only(span, 5, 11, 12, 13):
            if number == 5:
                self.keep(tensor := self.constant((value, end)), tensor.name)
            else:
                self.types.setdefault(*self.port((value, end)))
            self.check_count()
        return super().graph(span, depth)

    def node(self, span: Span, depth: int) -> None:
        super().node(span, depth)  # first what lies within: a subgraph's nodes
        texts = {3: "", 4: "", 7: ""}
        names: dict[int, list[str]] = {1: [], 2: []}
        attributes: dict[str, Attribute] = {}
        for number, value, end in self.only(span, 1, 2, 3, 4, 5, 7):
            if number in names:
                names[number].append(self.text((value, end)))
            elif number in texts:
                texts[number] = self.text((value, end))
            else:
                self.valued((value, end), attributes)
        op = summary.operator(texts[7], texts[4])
        ins, outs = tuple(names[1]), tuple(names[2])
        self.node_list.append(Node(op, texts[3], ins, outs, attributes, depth))
        if op == "Constant" and names[2]:
            held = attributes.get("value")
            if not isinstance(held, Tensor):  # value_ints and kin: small, and of no weight
                held = Tensor("", "", ())
            self.keep(held, names[2][0])
        if len(self.node_list) > MOST_NODES:
            self.fail(f"it has more than {MOST_NODES} nodes")

    def keep(self, tensor: Tensor, name: str) -> None:
        self.constants[name] = tensor
        if tensor.dtype:
            self.types.setdefault(name, Port(tensor.dtype, tensor.dims))
        self.check_count()

    def check_count(self) -> None:
        if len(self.types) + len(self.constants) > MOST_NAMES:
            self.fail(f"it names more than {MOST_NAMES} tensors")

    def valued(self, span: Span, attributes: dict[str, Attribute]) -> None:
        """Read one attribute into `attributes`."""
        name, value_of, floats, ints = "", None, [], []
        for number, value, end in self.fields(span, fixed=True):
            inner = (value, end)
            if number == 1:
                name = self.text(inner)
            elif number in (2, 7):
                floats += self.floats(inner)
                value_of = floats[-1] if number == 2 and floats else tuple(floats)
            elif number in (3, 8):
                ints += [_signed(n) for n in ([value] if end < 0 else self.packed(inner))]
                value_of = ints[-1] if number == 3 and ints else tuple(ints)
            elif number == 4 and end >= 0:
                text = self.data[value : min(end, value + 4096)]
                value_of = text.decode(errors="replace")
            elif number == 5:
                value_of = self.constant(inner)
        if value_of is not None:
            attributes[name] = value_of

    def floats(self, span: Span) -> tuple[float, ...]:
        """One float, or those that are packed."""
        start, end = span
        end = start - end if end < 0 else end
        return struct.unpack(f"<{(end - start) // 4}f", self.data[start : end - (end - start) % 4])

    def constant(self, span: Span) -> Tensor:
        """The constant that a TensorProto describes."""
        name, kind = "", 0
        dims: list[int] = []
        places: list[Place] = []
        where: dict[str, str] = {}
        for number, value, end in self.fields(span):
            if number == 1:
                dims += [value] if end < 0 else self.packed((value, end))
            elif number == 2 and end < 0:
                kind = value
            elif number == 8:
                name = self.text((value, end))
            elif number in (4, 5, 7, 9, 10, 11) and end >= 0:
                places.append((number, value, end))
            elif number == 13:
                key, text = self.entry((value, end))
                where[key] = text
        if len(dims) > MOST_AXES:
            self.fail(f"tensor {name!r} has more than {MOST_AXES} axes")
        dtype = summary.dtype(kind)
        outside = None
        if where:
            size = summary.packed_bytes(dtype, math.prod(dims))
            outside = self.external(name, where, size)
        return Tensor(name, dtype, tuple(dims), tuple(places), outside)


def _signed(number: int) -> int:
    return number - 2 * SIGN if number >= SIGN else number
