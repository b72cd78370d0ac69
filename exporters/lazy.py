"""Weights of a graph that are read, cast or quantized when they are written, one after another."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import onnx_ir as ir
import torch
from torch import Tensor

Read = Callable[[], np.ndarray]
Source = Callable[[], Tensor]
JOINED = ".joined"  # behind the name of the first of several weights in one
VIEWS = ("Reshape", "Transpose", "Identity")  # the last is a copy in another order


def tensor(
    name: str, shape: tuple[int, ...], read: Read, dtype: ir.DataType = ir.DataType.FLOAT
) -> ir.LazyTensor:
    """A tensor whose values are computed each time they are asked for, and never kept."""

    def evaluate() -> ir.Tensor:
        return ir.Tensor(read(), dtype=dtype, shape=ir.Shape(shape), name=name)

    return ir.LazyTensor(evaluate, dtype=dtype, shape=ir.Shape(shape), name=name, cache=False)


class Weight(ir.LazyTensor):
    """A weight that knows where it comes from: W' [out, in] of a Linear, W [in, out], or any other.

    `source` gives it, W' for matrices, in the dtype of the checkpoint: levers convert it piece by
    piece, which in float32 would be a gigabyte for an LLM's head.
    """

    def __init__(
        self, name: str, shape: tuple[int, ...], source: Source, turned: bool = True
    ) -> None:
        self.source, self.turned = source, turned

        def evaluate() -> ir.Tensor:
            values = source().float()
            values = values if turned else values.T.contiguous()
            return ir.Tensor(values.numpy(), name=name)

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


def fold_joins(graph: ir.Graph) -> None:
    """One weight in the place of several that are only joined, as queries, keys and values are."""
    for node in list(graph):
        parts = [v.const_value for v in node.inputs if v is not None]
        along = node.attributes["axis"].as_int() if node.op_type == "Concat" else None
        if along not in (0, -1) or not parts or not all(_ours(part) for part in parts):
            continue
        name, out = f"{parts[0].name}{JOINED}", node.outputs[0]  # pyright: ignore
        shape = tuple(out.shape.numpy()) if out.shape is not None else ()
        sources = [part.source for part in parts]  # pyright: ignore
        if len(shape) not in (1, 2) or (len(shape) == 2 and along != 0):
            continue

        def joined(sources: list[Source] = sources) -> Tensor:
            return torch.cat([source() for source in sources])

        weight = Weight(name, shape, joined)
        value = ir.Value(
            name=name, shape=ir.Shape(shape), type=ir.TensorType(weight.dtype), const_value=weight
        )
        graph.register_initializer(value)
        out.replace_all_uses_with(value)
        graph.remove(node, safe=True)
    drop_unused(graph)


def _ours(tensor: object) -> bool:
    return isinstance(tensor, Weight) and tensor.turned


def fold_views(graph: ir.Graph) -> None:
    """Weights of three axes and more as the graph wants them, where it reshapes or turns them.

    An expert's matrix is a slice of such a weight; what comes out is a matrix of all experts, or
    the same slices in another order.
    """
    for node in list(graph):
        value = node.inputs[0] if node.op_type in VIEWS else None
        weight = value.const_value if value is not None else None
        if value is None or not isinstance(weight, Weight) or len(value.uses()) > 1:
            continue
        out = node.outputs[0]
        if max(len(weight.shape), len(out.shape or ())) < 3 or out.shape is None:
            continue
        shape, source = tuple(int(n) for n in out.shape.numpy()), weight.source
        if node.op_type == "Transpose":
            source = partial(_turned, source, tuple(node.attributes["perm"].as_ints()))
        elif node.op_type == "Reshape":
            source = partial(_reshaped, source, shape)
        out.replace_all_uses_with(value)
        graph.remove(node, safe=True)
        value.const_value = Weight(str(value.name), shape, source)
        value.shape = ir.Shape(shape)


def _reshaped(source: Source, shape: tuple[int, ...]) -> Tensor:
    return source().reshape(shape)


def _turned(source: Source, axes: tuple[int, ...]) -> Tensor:
    return source().permute(axes)


def fold_transposes(graph: ir.Graph) -> None:
    """Transposed matrices in the place of matrices that are only ever transposed.

    A Linear is traced as MatMul(x, Transpose(weight)); folding must not read what may be gigabytes.
    """
    for node in list(graph):
        value = node.inputs[0] if node.op_type == "Transpose" else None
        weight = value.const_value if value is not None else None
        if value is None or not isinstance(weight, Weight) or len(value.uses()) > 1:
            continue
        if len(weight.shape) != 2:
            continue
        node.outputs[0].replace_all_uses_with(value)
        graph.remove(node, safe=True)
        shape = weight.shape.numpy()[::-1]
        value.const_value = Weight(str(value.name), shape, weight.source, turned=False)
        value.shape = ir.Shape(shape)
