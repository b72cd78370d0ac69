"""A layer's experts in one operator of ONNX Runtime, MoE, and the same in few bits, QMoE.

Only the dialect `ort` has them, and there not for every activation: elsewhere experts are plain
products, which levers treat as any.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from math import gcd

import numpy as np
import onnx_ir as ir
import torch
from torch import Tensor

from exporters import lazy
from exporters.levers import _nbits
from exporters.matmuls import CONTRIB, cast

LEAST_BLOCK = 16  # that QMoE takes
GATE_UP, DOWN = 2, 4  # inputs of MoE
CODE, FLOAT = ir.DataType.UINT8, ir.DataType.FLOAT


@dataclass(frozen=True)
class Matrices:
    """One weight of a MoE node: a matrix W' [out, in] an expert."""

    value: ir.Value

    @property
    def name(self) -> str:
        """The weight's name in the checkpoint."""
        return str(self.value.name)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Experts, outputs, inputs."""
        experts, rows, columns = lazy.shape_of(self.value)
        return experts, rows, columns

    def read(self) -> Tensor:
        """All matrices, one below the other [experts * out, in], in the checkpoint's dtype."""
        held = self.value.const_value
        if isinstance(held, lazy.Weight):
            return held.source().flatten(0, 1)
        return torch.from_numpy(lazy.reader(self.value)().copy()).flatten(0, 1)  # a small one


def nodes(graph: ir.Graph) -> Iterator[ir.Node]:
    """Every MoE of a graph, in its order."""
    yield from (n for n in list(graph) if n.op_type == "MoE" and n.domain == CONTRIB)


def narrow(graph: ir.Graph, dtype: ir.DataType) -> None:
    """Experts' weights stored in a float type of half the bytes, and widened when they are loaded.

    The operator computes in float32 on a CPU.
    """
    for node in nodes(graph):
        for at in (GATE_UP, DOWN):
            held = Matrices(_weight(node, at))
            read = partial(_as, lazy.reader(held.value), dtype)
            name = f"{held.name}.{dtype.name.lower()}"
            wide = cast(lazy.add(graph, name, held.shape, read, dtype), FLOAT)
            graph.insert_before(node, wide)
            node.replace_input_with(at, wide.outputs[0])


def _as(read: lazy.Read, dtype: ir.DataType) -> np.ndarray:
    with np.errstate(over="ignore"):  # infinite then, which the comparison refuses to ship
        return read().astype(dtype.numpy())


def quantize(graph: ir.Graph, scheme: _nbits.Scheme) -> None:
    """QMoE in the place of every MoE, its weights quantized when they are written.

    All weights have the bits of the scheme: of two widths in one node ONNX Runtime 1.32 says that
    its CPU has not got them yet. Blocks are the largest power of two that divides the inputs of
    both ways, up to the scheme's; where that is below QMoE's least, experts stay in float32.
    """
    for node in nodes(graph):
        ways = [Matrices(_weight(node, at)) for at in (GATE_UP, DOWN)]
        block = gcd(scheme.block, *(way.shape[2] for way in ways))
        if block >= LEAST_BLOCK:
            _replace(graph, node, ways, replace(scheme, block=block))


def _replace(graph: ir.Graph, node: ir.Node, ways: list[Matrices], scheme: _nbits.Scheme) -> None:
    (up, up_scales, up_zeros), (down, down_scales, down_zeros) = (
        _stored(graph, way, scheme) for way in ways
    )
    inputs = [*node.inputs[:2], up, up_scales, None, down, down_scales]
    if not scheme.symmetric:
        inputs += [None, None, None, None, up_zeros, down_zeros]
    attributes = {name: attribute.value for name, attribute in node.attributes.items()}
    attributes |= dict(
        expert_weight_bits=scheme.bits,
        block_size=scheme.block,
        accuracy_level=4,  # as in MatMulNBits: at level 0 a step takes 2 to 5 times as long
    )
    made, out = ir.node("QMoE", inputs, attributes, domain=CONTRIB), node.outputs[0]
    y = made.outputs[0]
    y.name, y.shape, y.type = out.name, out.shape, out.type
    graph.insert_before(node, made)
    out.replace_all_uses_with(y)
    graph.remove(node, safe=True)


def _stored(
    graph: ir.Graph, way: Matrices, scheme: _nbits.Scheme
) -> tuple[ir.Value, ir.Value, ir.Value | None]:
    """Codes, scales and zero points of all experts."""
    experts, rows, columns = way.shape
    blocks = columns // scheme.block
    shapes = [
        (experts, rows, columns * scheme.bits // 8),
        (experts, rows, blocks),
        (experts, rows, -(-blocks * scheme.bits // 8)),
    ]

    def made() -> tuple[np.ndarray, ...]:
        arrays = _nbits.quantize(way.read(), scheme)
        return tuple(a.reshape(shape) for a, shape in zip(arrays, shapes, strict=True))

    codes, scales, zeros = lazy.shared(made, 3)
    name = f"{way.name}.q{scheme.bits}"
    return (
        lazy.add(graph, name, shapes[0], codes, CODE),
        lazy.add(graph, f"{name}.scales", shapes[1], scales, FLOAT),
        None if scheme.symmetric else lazy.add(graph, f"{name}.zeros", shapes[2], zeros, CODE),
    )


def _weight(node: ir.Node, at: int) -> ir.Value:
    value = node.inputs[at]
    assert value is not None
    return value
