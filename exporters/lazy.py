"""Weights of a graph that are read, cast or quantized when they are written, one after another."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir
from torch import Tensor

Read = Callable[[], np.ndarray]
Source = Callable[[], Tensor]


def tensor(
    name: str, shape: tuple[int, ...], read: Read, dtype: ir.DataType = ir.DataType.FLOAT
) -> ir.LazyTensor:
    """A tensor whose values are computed each time they are asked for, and never kept."""

    def evaluate() -> ir.Tensor:
        return ir.Tensor(read(), dtype=dtype, shape=ir.Shape(shape), name=name)

    return ir.LazyTensor(evaluate, dtype=dtype, shape=ir.Shape(shape), name=name, cache=False)


class Matrix(ir.LazyTensor):
    """A weight of a Linear, W' [out, in] or W [in, out], that knows where it comes from.

    `source` gives W' in the dtype of the checkpoint: levers convert it piece by piece, which in
    float32 would be a gigabyte for an LLM's head.
    """

    def __init__(self, name: str, shape: tuple[int, ...], source: Source, turned: bool) -> None:
        self.source, self.turned = source, turned

        def evaluate() -> ir.Tensor:
            values = source().float()
            values = values if turned else values.T.contiguous()
            return ir.Tensor(values.numpy(), name=name)

        shape = shape if turned else shape[::-1]
        float32 = ir.DataType.FLOAT
        super().__init__(evaluate, float32, shape=ir.Shape(shape), name=name, cache=False)


def reader(value: ir.Value) -> Read:
    """How to read an initializer's values."""
    held = value.const_value
    assert held is not None
    return held.numpy


def shape_of(value: ir.Value) -> tuple[int, ...]:
    """The shape of an initializer."""
    assert value.const_value is not None
    return tuple(int(n) for n in value.const_value.shape)  # pyright: ignore


def add(
    graph: ir.Graph,
    name: str,
    shape: tuple[int, ...],
    read: Read,
    dtype: ir.DataType = ir.DataType.FLOAT,
) -> ir.Value:
    """An initializer of the graph; the one of that name, where two nodes share it."""
    if name in graph.initializers:
        return graph.initializers[name]
    value = ir.Value(
        name=name,
        shape=ir.Shape(shape),
        type=ir.TensorType(dtype),
        const_value=tensor(name, shape, read, dtype),
    )
    graph.register_initializer(value)
    return value


def shared(make: Callable[[], tuple[np.ndarray, ...]], count: int) -> list[Read]:
    """Readers of the arrays that one call makes; it is called anew once all were read."""
    waiting: dict[int, np.ndarray] = {}

    def take(i: int) -> np.ndarray:
        if i not in waiting:
            waiting.update(enumerate(make()))
        return waiting.pop(i)

    return [lambda i=i: take(i) for i in range(count)]


def drop_unused(graph: ir.Graph) -> None:
    """Take out initializers that no node reads any more."""
    for name in [n for n, value in graph.initializers.items() if not value.uses()]:
        if not graph.initializers[name].is_graph_output():
            del graph.initializers[name]


def fold_transposes(graph: ir.Graph) -> None:
    """Transposed matrices in the place of matrices that are only ever transposed.

    A Linear is traced as MatMul(x, Transpose(weight)); folding must not read what may be gigabytes.
    """
    for node in list(graph):
        value = node.inputs[0] if node.op_type == "Transpose" else None
        weight = value.const_value if value is not None else None
        if value is None or not isinstance(weight, Matrix) or len(value.uses()) > 1:
            continue
        out = node.outputs[0]
        graph.remove(node, safe=False)
        value.const_value = Matrix(str(value.name), weight.shape.numpy(), weight.source, False)
        value.shape = value.const_value.shape
        out.replace_all_uses_with(value)
