"""Weights of a graph that are read, cast or quantized when they are written, one after another."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

Read = Callable[[], np.ndarray]


def tensor(
    name: str, shape: tuple[int, ...], read: Read, dtype: ir.DataType = ir.DataType.FLOAT
) -> ir.LazyTensor:
    """A tensor whose values are computed each time they are asked for, and never kept."""

    def evaluate() -> ir.Tensor:
        return ir.Tensor(read(), dtype=dtype, shape=ir.Shape(shape), name=name)

    return ir.LazyTensor(evaluate, dtype=dtype, shape=ir.Shape(shape), name=name, cache=False)


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
        if value is None or value.name not in graph.initializers or value.const_value is None:
            continue
        shape, read = shape_of(value), reader(value)
        if len(shape) != 2 or any(use.node.op_type != "Transpose" for use in value.uses()):
            continue
        name, out = str(value.name), node.outputs[0]
        turned = next((u.node for u in value.uses() if u.node is not node), None)
        if turned is not None:
            continue  # seldom: one weight transposed twice; the optimizer may do as it likes
        graph.remove(node, safe=False)
        del graph.initializers[name]
        value = add(graph, name, shape[::-1], lambda read=read: np.ascontiguousarray(read().T))
        out.replace_all_uses_with(value)
