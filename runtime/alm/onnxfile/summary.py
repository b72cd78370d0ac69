"""The structure of an .onnx file, read without the onnx package.

Payloads are stepped over and never copied, so a graph of gigabytes costs as much as its structure.
The file may come from anywhere: whatever its bytes are, the result is a GraphFile or BadArtifacts.
"""

from __future__ import annotations

import stat
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import TypeVar

from alm.errors import BadArtifacts, MissingFile
from alm.host import archive
from alm.onnxfile.wire import Span, Wire
from alm.ports import Port

DEEPEST = 32  # graphs within graphs
ANY_RANK = "..."  # the only axis of a port without a stated shape
T = TypeVar("T")

# TensorProto.DataType, by number, as numpy (or ml_dtypes) calls them.
DTYPES = (
    "undefined float32 uint8 int8 uint16 int16 int32 int64 object bool float16 float64 uint32 "
    "uint64 complex64 complex128 bfloat16 float8_e4m3fn float8_e4m3fnuz float8_e5m2 "
    "float8_e5m2fnuz uint4 int4 float4_e2m1fn float8_e8m0fnu uint2 int2 float6_e2m3fn "
    "float6_e3m2fn"
).split()
BITS = dict.fromkeys("uint8 int8 bool".split(), 8) | {"uint4": 4, "int4": 4, "uint2": 2, "int2": 2}
BITS |= dict.fromkeys("uint16 int16 float16 bfloat16".split(), 16)
BITS |= dict.fromkeys("int32 uint32 float32".split(), 32) | {"complex128": 128}
BITS |= dict.fromkeys("int64 uint64 float64 complex64".split(), 64) | {"float4_e2m1fn": 4}
BITS |= {name: 8 for name in DTYPES if name.startswith("float8_")}
BITS |= {name: 6 for name in DTYPES if name.startswith("float6_")}
TYPES = {4: "sequence", 5: "map", 7: "opaque", 8: "sparse", 9: "optional"}  # besides tensors


@dataclass(frozen=True, order=True)
class External:
    """Where a tensor outside the graph lies: `length` bytes from `offset` of file `location`.

    `length` is the tensor's own size where the graph states none, and 0 where that is unknown too.
    """

    location: str
    offset: int
    length: int


@dataclass(frozen=True)
class GraphFile:
    """The summary of a graph's file.

    `nodes` counts operators, also in subgraphs and functions: "MatMul", and "domain::Op" outside
    the default domain. `inputs` leaves out those that are initializers. An axis without size and
    name is "", and a port without shape has the one axis "...". `initializers` and `inline_bytes`
    count what the file itself holds, in all graphs: the tensors, and the bytes of their values.
    """

    path: Path
    ir_version: int = 0
    producer: str = ""
    opsets: dict[str, int] = field(default_factory=dict)
    nodes: Counter[str] = field(default_factory=Counter)
    inputs: dict[str, Port] = field(default_factory=dict)
    outputs: dict[str, Port] = field(default_factory=dict)
    initializers: int = 0
    inline_bytes: int = 0
    tensors: frozenset[External] = frozenset()
    functions: frozenset[str] = frozenset()  # operators that the file itself defines

    @property
    def external(self) -> set[str]:
        """The files, as the graph calls them, that hold tensors from outside."""
        return {tensor.location for tensor in self.tensors}


def read(path: Path | str) -> GraphFile:
    """The summary of the graph in `path`; MissingFile, or BadArtifacts when it cannot be read."""
    path = Path(path)
    return mapped(path, lambda data: Walk(path, data).model())


def mapped(path: Path, reader: Callable[[mmap | bytes], T]) -> T:
    """What `reader` gives for the mapped file; MissingFile, or BadArtifacts when it is no graph."""
    if (inside := archive.holding(path)) is not None:
        return reader(archive.content(*inside))  # its weights lie beside it
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # a pipe would wait for its writer
            raise OSError("it is not a regular file")
        with path.open("rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as data:
            return reader(data)
    except (FileNotFoundError, NotADirectoryError):
        raise MissingFile(f"there is no graph {path}") from None
    except BadArtifacts:
        raise
    except (OSError, ValueError) as error:  # no permission, an empty file
        why = getattr(error, "strerror", None) or error
        raise BadArtifacts(f"{path} is not a readable ONNX graph: {why}") from None


class Walk(Wire):
    def __init__(self, path: Path, data: mmap | bytes) -> None:
        super().__init__(f"{path} is not a readable ONNX graph", data)
        self.path = path
        self.nodes: Counter[str] = Counter()
        self.tensors: set[External] = set()
        self.functions: set[str] = set()
        self.initializers = self.inline_bytes = 0

    def model(self) -> GraphFile:
        inputs, outputs = {}, {}
        opsets: dict[str, int] = {}
        version, producer, graphs = 0, ["", ""], 0
        for number, value, end in self.fields((0, len(self.data)), once=(7,)):
            if number == 1 and end < 0:
                version = value
            elif number in (2, 3):
                producer[number - 2] = self.text((value, end))
            elif number == 7:
                inputs, outputs = self.graph((value, end), 0)
                graphs += 1
            elif number == 8:
                domain, opset = self.opset((value, end))
                opsets[domain] = opset
            elif number == 20:  # training: two graphs
                for _, start, stop in self.only((value, end), 1, 2):
                    self.graph((start, stop), 1)
            elif number == 25:
                self.function((value, end))
        if not (graphs and 0 < version < 2**31 and opsets):
            self.fail("it has no graph, no IR version or no opset")
        return GraphFile(
            self.path, version, " ".join(producer).strip(), opsets, self.nodes, inputs, outputs,
            self.initializers, self.inline_bytes, frozenset(self.tensors),
            frozenset(self.functions),
        )  # fmt: skip

    def opset(self, span: Span) -> tuple[str, int]:
        domain, version = "", 0
        for number, value, end in self.fields(span):
            if number == 1:
                domain = self.text((value, end))
            elif number == 2 and end < 0:
                version = value
        return ("" if domain == "ai.onnx" else domain), version

    def graph(self, span: Span, depth: int) -> tuple[dict[str, Port], dict[str, Port]]:
        """The graph's own inputs and outputs; all else is added up."""
        if depth > DEEPEST:
            self.fail(f"graphs lie more than {DEEPEST} deep in each other")
        inputs, outputs = {}, {}
        constants: set[str] = set()
        for number, value, end in self.fields(span):
            inner = (value, end)
            if number == 1:
                self.node(inner, depth)
            elif number in (5, 15):
                constants.add(self.tensor(inner) if number == 5 else self.sparse(inner))
                self.initializers += 1
            elif number in (11, 12) and depth == 0:
                name, port = self.port(inner)
                (inputs if number == 11 else outputs)[name] = port
        return {name: inputs[name] for name in inputs if name not in constants}, outputs

    def function(self, span: Span) -> None:
        texts = {1: "", 10: ""}
        for number, value, end in self.only(span, 1, 7, 10, 11):
            if number in texts:
                texts[number] = self.text((value, end))
            else:
                self.node((value, end), 1) if number == 7 else self.attribute((value, end), 1)
        self.functions.add(operator(texts[10], texts[1]))

    def node(self, span: Span, depth: int) -> None:
        kind = domain = ""
        for number, value, end in self.only(span, 1, 2, 3, 4, 5, 7):
            if number == 5:
                self.attribute((value, end), depth)
            elif number == 4:
                kind = self.text((value, end))
            elif number == 7:
                domain = self.text((value, end))
            else:  # names that are no text bring backends down
                self.text((value, end))
        self.nodes[operator(domain, kind)] += 1

    def attribute(self, span: Span, depth: int) -> None:
        for number, value, end in self.fields(span, once=(5, 6, 22)):
            inner = (value, end)
            if number in (5, 10):
                self.tensor(inner)
            elif number in (6, 11):
                self.graph(inner, depth + 1)
            elif number in (22, 23):
                self.sparse(inner)

    def sparse(self, span: Span) -> str:
        name = ""
        for number, value, end in self.fields(span, once=(1, 2)):
            if number in (1, 2):
                tensor_name = self.tensor((value, end))
                name = tensor_name if number == 1 else name  # the values' name is the whole's
        return name

    def tensor(self, span: Span) -> str:
        """Note the tensor's bytes, here or elsewhere; its name."""
        name, kind, count, outside = "", 0, 1, False
        where: dict[str, str] = {}
        for number, value, end in self.fields(span):
            if number == 1:
                for size in [value] if end < 0 else self.packed((value, end)):
                    count = min(count * size, 2**63)
            elif number == 2 and end < 0:
                kind = value
            elif number == 8:
                name = self.text((value, end))
            elif number in (4, 5, 6, 7, 9, 10, 11):
                self.inline_bytes += end - value if end >= 0 else 4
            elif number == 13:
                key, text = self.entry((value, end))
                if key in where:
                    self.fail(f"a tensor says twice what its {key!r} is")
                where[key] = text
            elif number == 14 and end < 0:
                outside = value == 1
        if outside or where:
            self.tensors.add(self.external(name, where, packed_bytes(dtype(kind), count)))
        return name

    def external(self, name: str, where: dict[str, str], size: int) -> External:
        """Where a tensor of `size` bytes lies, by the entries of its external_data."""
        if not where.get("location"):
            self.fail(f"tensor {name!r} lies in another file and does not say in which")
        numbers = []
        for key, default in (("offset", 0), ("length", size)):
            text = where.get(key, str(default))
            if not (text.isascii() and text.isdigit() and len(text) < 20):
                self.fail(f"tensor {name!r} has the {key} {text[:40]!r}")
            numbers.append(int(text))
        return External(where["location"], *numbers)

    def entry(self, span: Span) -> tuple[str, str]:
        texts = {1: "", 2: ""}
        for number, value, end in self.only(span, 1, 2):
            texts[number] = self.text((value, end))
        return texts[1], texts[2]

    def port(self, span: Span) -> tuple[str, Port]:
        name, port = "", Port("undefined", (ANY_RANK,))
        for number, value, end in self.only(span, 1, 2):
            if number == 1:
                name = self.text((value, end))
                continue
            for kind, start, stop in self.fields((value, end)):
                if kind == 1:
                    port = self.shaped((start, stop))
                elif kind in TYPES:
                    port = Port(TYPES[kind], (ANY_RANK,))
        return name, port

    def shaped(self, span: Span) -> Port:
        kind, axes = 0, (ANY_RANK,)
        for number, value, end in self.fields(span):
            if number == 1 and end < 0:
                kind = value
            elif number == 2:
                axes = tuple(self.axis((a, b)) for _, a, b in self.only((value, end), 1))
        return Port(dtype(kind), axes)

    def axis(self, span: Span) -> int | str:
        axis: int | str = ""
        for number, value, end in self.fields(span):
            if number == 1 and end < 0:
                axis = value if value < 2**63 else ""  # negative: exporters' word for unknown
            elif number == 2:
                axis = self.text((value, end))
        return axis


def operator(domain: str, kind: str) -> str:
    """An operator's name in `GraphFile.nodes`: "MatMul", or "domain::Op" outside the default."""
    return kind if domain in ("", "ai.onnx") else f"{domain}::{kind}"


def dtype(number: int) -> str:
    """The element type with this number in ONNX; one that is newer than this file is "type99"."""
    return DTYPES[number] if number < len(DTYPES) else f"type{number}"


def packed_bytes(kind: str, count: int) -> int:
    """Bytes of so many elements of a type; 0 where the type's size is not known."""
    return -(-count * BITS.get(kind, 0) // 8)
