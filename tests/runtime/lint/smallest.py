"""Smallest graphs that break one rule of the lint each, and the same graphs mended."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, helper

from alm.ports import Span

FLOAT, HALF, INT8, INT64 = (
    TensorProto.FLOAT,
    TensorProto.FLOAT16,
    TensorProto.INT8,
    TensorProto.INT64,
)
BOOL, INT32, INT16, UINT4 = (
    TensorProto.BOOL,
    TensorProto.INT32,
    TensorProto.INT16,
    TensorProto.UINT4,
)
UINT8, INT4 = TensorProto.UINT8, TensorProto.INT4
JETPACK6, JETPACK7, RTX = "trt-jetpack6", "trt-jetpack7", "trt-rtx"
NEW = (JETPACK7, RTX)
ALL = (JETPACK6, *NEW)
CPU = ("cpu",)


class Small(NamedTuple):
    """A graph that breaks `rule` for these targets, and a mended one that breaks none."""

    rule: str
    broken: ModelProto
    mended: ModelProto
    targets: tuple[str, ...] = ALL
    refused: bool = True  # by TensorRT-RTX's parser or builder too
    spans: dict[str, Span] = {}  # of dynamic axes

    @property
    def stated(self) -> dict[str, Span]:
        """The spans that the broken graph has: all, unless it is their lack that breaks it."""
        return {} if self.rule == "profile" else self.spans


def graph(
    nodes: NodeProto | list[NodeProto],
    inputs: Sequence[Any],  # name, type, axes
    outputs: Sequence[Any],
    constants: dict[str, Any] | None = None,
    opset: int = 20,
) -> ModelProto:
    """A model; constants are arrays, or tensors where numpy has no such type."""
    nodes = [nodes] if isinstance(nodes, NodeProto) else nodes
    for number, node in enumerate(nodes):
        node.name = f"node{number}"
    held = [
        value if isinstance(value, TensorProto) else onnx.numpy_helper.from_array(value, name)
        for name, value in (constants or {}).items()
    ]
    takes, gives = (
        [helper.make_tensor_value_info(*port) for port in side] for side in (inputs, outputs)
    )
    opsets = [helper.make_opsetid("", opset)]
    if any(node.domain for node in nodes):
        opsets.append(helper.make_opsetid("com.microsoft", 1))
    body = helper.make_graph(nodes, "smallest", takes, gives, held)
    return helper.make_model(body, opset_imports=opsets, ir_version=10)


node = helper.make_node


def gelu(domain: str) -> ModelProto:
    kind = "FastGelu" if domain else "Gelu"
    made = node(kind, ["x"], ["y"], domain=domain)
    return graph(made, [("x", FLOAT, [2, 8])], [("y", FLOAT, [2, 8])])


def relu(opset: int) -> ModelProto:
    made = node("Relu", ["x"], ["y"])
    return graph(made, [("x", FLOAT, [2, 8])], [("y", FLOAT, [2, 8])], opset=opset)


def product(kind: int) -> ModelProto:
    ports = [("a", kind, [2, 8]), ("b", kind, [8, 4])]
    return graph(node("MatMul", ["a", "b"], ["y"]), ports, [("y", kind, [2, 4])])


def cast(kind: int) -> ModelProto:
    made = node("Cast", ["x"], ["y"], to=FLOAT)
    return graph(made, [("x", kind, [2, 8])], [("y", FLOAT, [2, 8])])


def reduced(constant: bool) -> ModelProto:
    made = node("ReduceSum", ["x", "axes"], ["y"], keepdims=1)
    inputs: list[Any] = [("x", FLOAT, [2, 8])]
    inputs += [] if constant else [("axes", INT64, [1])]
    held = {"axes": np.array([1], np.int64)} if constant else {}
    return graph(made, inputs, [("y", FLOAT, [2, 1])], held)


def normed(outputs: int) -> ModelProto:
    names = ["y", "mean"][:outputs]
    made = node("LayerNormalization", ["x", "w"], names, axis=-1)
    ports = [("y", FLOAT, [2, 8]), ("mean", FLOAT, [2, 1])][:outputs]
    return graph(made, [("x", FLOAT, [2, 8])], ports, {"w": np.ones(8, np.float32)})


def scatter(mode: str = "linear", room: int | str = 16) -> ModelProto:
    made = node("TensorScatter", ["cache", "new", "at"], ["y"], axis=-2, mode=mode)
    shape = [1, 2, room, 8]
    inputs = [("cache", HALF, shape), ("new", HALF, [1, 2, 1, 8]), ("at", INT64, [1])]
    return graph(made, inputs, [("y", HALF, shape)], opset=24)


def attention(
    kind: int = HALF,
    axes: int = 4,
    keys: int = 16,
    mask: bool = False,
    past: bool = False,
    width: int = 64,
    **attributes: Any,
) -> ModelProto:
    """Attention of 16 queries and two heads."""

    def shape(n: int) -> list[int]:
        return [1, 2, n, width] if axes == 4 else [1, n, 2 * width]

    inputs: list[Any] = [
        ("q", kind, shape(16)),
        ("k", kind, shape(keys)),
        ("v", kind, shape(keys)),
    ]
    outputs: list[Any] = [("y", kind, shape(16))]
    names = ["q", "k", "v"]
    if mask:
        inputs.append(("m", BOOL, [1, 1, 16, keys]))
        names.append("m")
    if past:
        inputs += [(name, kind, shape(4)) for name in ("pk", "pv")]
        outputs += [(name, kind, shape(keys + 4)) for name in ("nk", "nv")]
        names += ["", "pk", "pv"]
    attributes |= {"q_num_heads": 2, "kv_num_heads": 2} if axes == 3 else {}
    made = node("Attention", names, [name for name, _, _ in outputs], **attributes)
    return graph(made, inputs, outputs, opset=24)


def dequantized(
    scale: Any = 0.5, zero: int | None = None, kind: int = INT8, block: int = 0, shared: int = 1
) -> ModelProto:
    """x times a weight [128, 32] of few bits, `shared` times with one scale; scale None: fed."""
    rows = 128
    codes = [n % 7 + 1 for n in range(rows * 32)]
    held: dict[str, Any] = {}
    inputs: list[Any] = [("x", HALF, [4, rows])]
    if scale is None:
        inputs.append(("s", HALF, [32]))
    else:
        held["s"] = np.full((-(-rows // block), 32) if block else 32, scale, np.float16)
    attributes: dict[str, Any] = {"axis": 0, "block_size": block} if block else {"axis": 1}
    nodes, outputs = [], []
    for i in range(shared):
        held[f"w{i}"] = helper.make_tensor(f"w{i}", kind, [rows, 32], codes)
        names = [f"w{i}", "s"]
        if zero is not None:
            held["z"] = helper.make_tensor("z", kind, held["s"].shape, [zero] * held["s"].size)
            names.append("z")
        nodes.append(node("DequantizeLinear", names, [f"d{i}"], **attributes))
        nodes.append(node("MatMul", ["x", f"d{i}"], [f"y{i}"]))
        outputs.append((f"y{i}", HALF, [4, 32]))
    return graph(nodes, inputs, outputs, held, opset=21)


def own_scales() -> ModelProto:
    """Two products, each with a scale of its own."""
    model = dequantized(shared=2)
    model.graph.initializer.add().CopyFrom(model.graph.initializer[0])
    model.graph.initializer[-1].name = "s1"
    model.graph.node[2].input[1] = "s1"
    return model


def counted(values: bool) -> ModelProto:
    """Range up to what an input holds, or up to the length of another."""
    if values:
        nodes = [node("Range", ["zero", "n", "one"], ["y"])]
        inputs: list[Any] = [("n", INT64, [])]
    else:
        nodes = [
            node("Shape", ["x"], ["shape"]),
            node("Squeeze", ["shape"], ["n"]),
            node("Range", ["zero", "n", "one"], ["y"]),
        ]
        inputs = [("x", FLOAT, ["n"])]
    held = {"zero": np.array(0, np.int64), "one": np.array(1, np.int64)}
    return graph(nodes, inputs, [("y", INT64, ["length"])], held)


def nonzero(there: bool) -> ModelProto:
    made = node("NonZero" if there else "Abs", ["x"], ["y"])
    outputs = [("y", INT64, [1, "length"])] if there else [("y", FLOAT, [8])]
    return graph(made, [("x", FLOAT, [8])], outputs)


def dynamic() -> ModelProto:
    made = node("Relu", ["x"], ["y"])
    return graph(made, [("x", FLOAT, ["frames", 8])], [("y", FLOAT, ["frames", 8])])


def integer_product(kind: int, *codes: int) -> ModelProto:
    """`codes` are the first of the last output: inputs 2k and 2k + 1 are added in 16 bits."""
    made = node("MatMulInteger", ["x", "w"], ["y"])
    values = np.ones((7, 4), np.int64)
    values[: len(codes), -1] = codes
    weight = helper.make_tensor("w", kind, [7, 4], values.ravel().tolist())
    return graph(made, [("x", UINT8, [2, 7])], [("y", INT32, [2, 4])], {"w": weight})


SMALLEST = {
    "operator": Small("operator", gelu("com.microsoft"), gelu("")),
    "opset": Small("opset", relu(24), relu(20), (JETPACK6,), False),
    "dtype": Small("dtype", product(INT32), product(FLOAT)),
    "port-dtype": Small("port-dtype", cast(INT16), cast(UINT8)),
    "constant-input": Small("constant-input", reduced(False), reduced(True)),
    "left-out": Small("left-out", normed(2), normed(1)),
    "attribute": Small("attribute", scatter("circular"), scatter("linear"), NEW),
    "softcap": Small("attribute", attention(softcap=2.0), attention(), NEW),
    "softmax": Small("attribute", attention(softmax_precision=1), attention(), NEW),
    "rank": Small("rank", attention(axes=3), attention(), (JETPACK7,), False),
    "attention-cache": Small("attention-cache", attention(past=True), attention(), NEW),
    "attention-causal": Small(
        "attention-causal", attention(is_causal=1, mask=True), attention(mask=True), NEW
    ),
    "causal-cached": Small(
        "attention-causal", attention(is_causal=1, keys=32), attention(is_causal=1), NEW, False
    ),
    "attention-fused": Small(
        "attention-fused", attention(FLOAT), attention(FLOAT, TRT_decomposable=1), NEW
    ),
    "head": Small(
        "attention-fused", attention(width=4), attention(width=4, TRT_decomposable=1), NEW
    ),
    "weight-dtype": Small("weight-dtype", dequantized(kind=UINT4, block=128),
                          dequantized(kind=INT4, block=128)),
    "zero-point": Small("zero-point", dequantized(zero=3), dequantized(zero=0)),
    "scale-sign": Small("scale-sign", dequantized(-0.5), dequantized(0.5)),
    "scale-constant": Small(
        "constant-input", dequantized(None), dequantized(0.5), (JETPACK6, JETPACK7), False
    ),
    "overflow": Small(
        "overflow", integer_product(INT8, 120, 9), integer_product(UINT8, 255, 255), CPU, False
    ),
    "below": Small(
        "overflow", integer_product(INT8, 0, 0, -9, -120), integer_product(INT8, -8, -120), CPU,
        False,
    ),
    "neighbours": Small(
        "overflow", integer_product(INT8, 65, 64), integer_product(INT8, 1, 127, 127, -127), CPU,
        False,
    ),
    "scale-shared": Small("scale-shared", dequantized(shared=2), own_scales(), ALL, False),
    "block": Small("block", dequantized(kind=INT4, block=48), dequantized(kind=INT4, block=64)),
    "data-dependent": Small("data-dependent", nonzero(True), nonzero(False)),
    "values": Small(
        "data-dependent", counted(True), counted(False), ALL, True, {"n": Span(1, 4, 8)}
    ),
    "static-axis": Small(
        "static-axis", scatter(room="capacity"), scatter(), NEW, spans={"capacity": Span(8, 8, 8)}
    ),
    "profile": Small("profile", dynamic(), dynamic(), ALL, True, {"frames": Span(1, 4, 8)}),
}  # fmt: skip
