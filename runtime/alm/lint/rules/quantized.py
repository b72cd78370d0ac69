"""Rules about weights of few bits: QuantizeLinear and DequantizeLinear as TensorRT reads them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

import numpy as np

from alm.errors import AlmError
from alm.lint.rule import Breach, Case, called, rule
from alm.onnxfile.graph_nodes import Node, Tensor
from alm.precision import ROLES, Storage, Wanted, choose

QUANTIZERS = ("QuantizeLinear", "DequantizeLinear")
CODES, SCALE, ZERO = 0, 1, 2
NARROW = ("int4", "uint4")
PAIR = 128  # 255 x 128 is less than 2^15


def _lever(case: Case, node: Node) -> str:
    narrow = case.graph.dtype(node.input(CODES)) in NARROW
    return f"export with {case.fewer_bits(4 if narrow else 8)}"


@rule(
    "weight-dtype",
    "what is dequantized is of a signed type",
    "onnx-tensorrt 10.15 docs/operators.md: DequantizeLinear of int8, fp8, int4; uint4 was refused "
    "by TensorRT-RTX 1.7.1",
)
def weight_dtype(case: Case) -> Iterator[Breach]:
    for node in case.of("DequantizeLinear"):
        kind, allowed = case.graph.dtype(node.input(CODES)), case.limits.quantized
        if kind and allowed and kind not in allowed:
            what = f"weights of {kind}, and {', '.join(allowed)} are taken"
            yield Breach(called(node), what, f"{_lever(case, node)}, which is symmetric")


@rule(
    "zero-point",
    "weights are symmetric: zero points are zero, or left out",
    "onnx-tensorrt docs/operators.md: x_zero_point must be zero; refused by TensorRT-RTX 1.7.1 as "
    "shiftIsAllZeros",
)
def zero_point(case: Case) -> Iterator[Breach]:
    for node, tensor in _constants(case, ZERO):
        values = case.values(tensor)
        if values is not None and np.any(values):
            what = f"a zero point of {values[np.flatnonzero(values)[0]]}"
            yield Breach(called(node), what, f"{_lever(case, node)}, which is symmetric")


@rule(
    "scale-sign",
    "every scale is above zero and finite",
    "TensorRT-RTX 1.7.1: Scale coefficients must all be positive",
)
def scale_sign(case: Case) -> Iterator[Breach]:
    for node, tensor in _constants(case, SCALE):
        values = case.values(tensor)
        if values is None:
            continue
        wrong = np.flatnonzero(~((values > 0) & np.isfinite(values)))
        if len(wrong):
            what = f"{len(wrong)} of {len(values)} scales are not above zero: {values[wrong[0]]:g}"
            yield Breach(called(node), what, f"{_lever(case, node)}, whose scales are positive")


@rule(
    "overflow",
    "weights of integer products are uint8, or int8 of which no two neighbours add up to over 128",
    "tried with ONNX Runtime 1.32 on x86 without VNNI: the products of inputs 2k and 2k + 1, uint8 "
    "times int8, are added in 16 bits, and what does not fit is cut",
    refused=False,
)
def overflow(case: Case) -> Iterator[Breach]:
    weights = case.limits.overflows or {}
    for node in case.of(*weights):
        name = node.input(weights[node.op])
        if case.graph.dtype(name) == "int8" and not _narrow(case, node, name):
            what = "int8 weights, which overflow on some processors"
            yield Breach(called(node), what, _smaller(case))


def _narrow(case: Case, node: Node, name: str) -> bool:
    """Whether a constant is so small that two products with a uint8 fit into 16 bits."""
    tensor = case.graph.constants.get(name)
    if tensor is None:
        return False
    try:
        values = case.values(tensor)
    except AlmError:  # too many to look at, or not there
        return False
    if values is None:
        return False
    most = PAIR
    if node.op == "ConvInteger" or len(tensor.dims) < 2:  # neighbours depend on the engine
        most = PAIR // 2
    else:
        rows = values.reshape(tensor.dims).astype(np.int16)
        odd = rows[..., 1::2, :]
        values = rows[..., ::2, :][..., : odd.shape[-2], :] + odd
    return max(-int(values.min(initial=0)), int(values.max(initial=0))) <= most


def _smaller(case: Case) -> str:
    """The way out of an overflow, and the lever that goes it: the one that costs the least."""
    products = set(case.limits.overflows or {})

    def ours(storage: Storage) -> bool:
        return not products.isdisjoint(storage.operators)

    names = (choose(case.levers, role, Wanted(8), ours) for role in ROLES)
    name = next(filter(None, names), "")
    return "store them as uint8 around 128, or with larger scales" + (
        f", as --precision {name} does" if name else ""
    )


@rule(
    "scale-shared",
    "every DequantizeLinear has a scale tensor of its own",
    "TensorRT Edge-LLM 0.9.1, which copies them before a build: a scale of many nodes makes "
    "TensorRT's compiler crash",
)
def scale_shared(case: Case) -> Iterator[Breach]:
    users: dict[str, list[Node]] = defaultdict(list)
    for node in case.of("DequantizeLinear") if case.limits.symmetric else ():
        if node.input(SCALE) in case.graph.constants:
            users[node.input(SCALE)].append(node)
    for name, nodes in users.items():
        if len(nodes) > 1:
            what = f"the scale {name} is also of {called(nodes[1])} ({len(nodes)} nodes in all)"
            yield Breach(called(nodes[0]), what, "give every node a copy of it")


@rule(
    "block",
    "blocks divide one of the last two axes, and there is a scale for each",
    "TensorRT's guide to quantized types: block quantization",
)
def block(case: Case) -> Iterator[Breach]:
    for node in case.of("DequantizeLinear") if case.limits.symmetric else ():
        size = node.number("block_size", 0)
        shape, scales = (case.graph.axes(node.input(number)) for number in (CODES, SCALE))
        if not size or shape is None or scales is None or len(shape) < 1:
            continue
        axis = node.number("axis", 1)
        axis += len(shape) if axis < 0 else 0
        if not len(shape) - 2 <= axis < len(shape):
            what = f"blocks along axis {axis} of {len(shape)}"
            yield Breach(called(node), what, _lever(case, node))
            continue
        length = shape[axis]
        count = length // size if isinstance(length, int) and length % size == 0 else None
        if count is None or scales != (*shape[:axis], count, *shape[axis + 1 :]):
            what = f"blocks of {size} in {list(shape)} with scales of {list(scales)}"
            yield Breach(called(node), what, _lever(case, node))


def _constants(case: Case, number: int) -> Iterator[tuple[Node, Tensor]]:
    """The constants that quantizers take there; none for a target that takes any."""
    for node in case.of(*QUANTIZERS) if case.limits.symmetric else ():
        tensor = case.graph.constants.get(node.input(number))
        if node.input(number) and tensor is not None:
            yield node, tensor
