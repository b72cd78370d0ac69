"""Rules about operators: which there are, of which opset and types, and in which form."""

from __future__ import annotations

from collections.abc import Iterator

from alm.lint.rule import Breach, Case, called, rule
from alm.onnxfile.graph_nodes import Node
from alm.target import Operator
from alm.targets import DEQUANTIZE

# Which of our own levers and dialects brought an operator, and so what to take instead.
ATTENTION = (
    "Attention", "TensorScatter", "RotaryEmbedding", "RMSNormalization",
    "com.microsoft::GroupQueryAttention", "com.microsoft::MultiHeadAttention",
    "com.microsoft::RotaryEmbedding", "com.microsoft::SkipSimplifiedLayerNormalization",
    "SimplifiedLayerNormalization", "com.microsoft::Attention",
)  # fmt: skip
FEW_BITS = ("com.microsoft::MatMulNBits", "com.microsoft::GatherBlockQuantized")
INTEGERS = ("DynamicQuantizeLinear", "MatMulInteger", "ConvInteger")
DOUBLE = {"float64": "float32"}  # doubles are read as floats


@rule("operator", "the backend has the operator", "the target's table of operators")
def operator(case: Case) -> Iterator[Breach]:
    limits, seen = case.limits, set[str]()
    for node in case.nodes:
        if limits.has(node.op) or node.op in seen:
            continue
        seen.add(node.op)  # once an operator: a report of a thousand rows is not read
        count = case.graph.file.nodes[node.op]
        what = f"{limits.backend} has no {node.op}"
        yield Breach(called(node), what, _instead(case, node.op), limits.source, count)


def _instead(case: Case, op: str) -> str:
    if op in ATTENTION:
        return f"export with --dialect {case.goal.DIALECT}"
    if op in FEW_BITS:
        return f"export with {case.fewer_bits(4)}"
    if op in INTEGERS:
        return f"export with {case.fewer_bits(8)}"
    if "::" in op:
        return f"export with --target {case.target}"
    return "write it in other operators"


@rule(
    "opset",
    "the graph's opset is one that the parser reads",
    "the target's table of operators; ONNX 1.16: int4 and blocks are of opset 21",
)
def opset(case: Case) -> Iterator[Breach]:
    limits = case.limits
    least, most = limits.opsets[0], limits.newest_opset(any(case.of(DEQUANTIZE)))
    version = case.graph.file.opsets.get("", 0)
    if version and not least <= version <= most:
        yield Breach(
            "",
            f"the graph is of opset {version}, and {limits.backend} reads {least} to {most}",
            f"export with --dialect {case.goal.DIALECT}",
            limits.source,
            nodes=0,
        )


@rule(
    "dtype",
    "an operator's input is of a type that the backend computes in",
    "the target's table of operators, column of types",
)
def dtype(case: Case) -> Iterator[Breach]:
    for node, limit in _limited(case):
        kind = case.graph.dtype(node.input(limit.data))
        kind = DOUBLE.get(kind, kind)
        if node.op == DEQUANTIZE or "*" in limit.types:
            continue  # see weight-dtype
        if kind and kind not in limit.types:
            what = f"{node.op} of {kind}, and {case.limits.backend} wants {', '.join(limit.types)}"
            source = limit.note or case.limits.source
            yield Breach(called(node), what, "put a Cast in front of it", source)


@rule(
    "port-dtype",
    "inputs and outputs are of a type that a backend can have there",
    "onnx-tensorrt docs/operators.md: quantized types are of weights alone",
)
def port_dtype(case: Case) -> Iterator[Breach]:
    allowed, file = case.limits.ports, case.graph.file
    for name, port in (*file.inputs.items(), *file.outputs.items()):
        if allowed and DOUBLE.get(port.dtype, port.dtype) not in allowed:
            way = f"{case.fewer_bits(8)} keeps caches in float16"
            yield Breach(name, f"it is {port.dtype}, and {', '.join(allowed)} are taken", way)


@rule(
    "constant-input",
    "inputs that shape the engine are known when it is built",
    "onnx-tensorrt docs/operators.md, column of restrictions: axes must be constants",
)
def constant_input(case: Case) -> Iterator[Breach]:
    for node, limit in _limited(case):
        for number in limit.constant:
            name = node.input(number)
            if name and name not in case.flow.fixed:
                what = f"input {number} of {node.op}, {name}, is computed while it runs"
                yield Breach(called(node), what, "make it an initializer", limit.note)


@rule(
    "left-out",
    "inputs and outputs that the backend does not have are left out",
    "onnx-tensorrt docs/operators.md, column of restrictions",
)
def left_out(case: Case) -> Iterator[Breach]:
    for node, limit in _limited(case):
        if node.op == "Attention":
            continue  # see attention-cache
        more = [name for name in node.outputs[limit.outputs or len(node.outputs) :] if name]
        used = [name for name in map(node.input, limit.absent) if name]
        for side, names in (("output", more), ("input", used)):
            if names:
                what = f"{node.op} with the {side} {', '.join(names)}"
                yield Breach(called(node), what, "do without it", limit.note)


@rule(
    "attribute",
    "attributes have the one value that the backend knows",
    "onnx-tensorrt docs/operators.md, column of restrictions; tried with TensorRT-RTX 1.7.1",
)
def attribute(case: Case) -> Iterator[Breach]:
    for node, limit in _limited(case):
        for name, wanted in (limit.attributes or {}).items():
            value = node.attributes.get(name, wanted)
            if value != wanted:
                only = "it must be left out" if wanted is None else f"only {wanted} is taken"
                what = f"{node.op} with {name}={value}, and {only}"
                yield Breach(called(node), what, f"export with --dialect {case.goal.DIALECT}")


@rule(
    "rank",
    "an input has as many axes as the backend wants",
    "onnx-tensorrt 10.15 docs/operators.md: Attention and TensorScatter of four axes",
)
def rank(case: Case) -> Iterator[Breach]:
    for node, limit in _limited(case):
        for number, wanted in (limit.ranks or {}).items():
            axes = case.graph.axes(node.input(number)) if node.input(number) else None
            if axes is not None and len(axes) != wanted:
                what = f"input {number} of {node.op} has {len(axes)} axes, and {wanted} are wanted"
                yield Breach(called(node), what, f"export with --dialect {case.goal.DIALECT}")


def _limited(case: Case) -> Iterator[tuple[Node, Operator]]:
    table = case.limits.operators or {}
    return ((node, table[node.op]) for node in case.nodes if node.op in table)
