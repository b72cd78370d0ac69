"""How many operations a graph takes, from the shapes that it gives of its own tensors."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from math import prod
from pathlib import Path

from alm.onnxfile import graph_nodes
from alm.onnxfile.graph_nodes import Graph, Node

ATTENTION = ("Attention", "MultiHeadAttention")
MATRICES = ("MatMul", "MatMulInteger", "FusedMatMul", "Gemm")
EXPERTS = ("MoE", "QMoE")
KINDS = (*ATTENTION, *MATRICES, *EXPERTS, "Conv", "ConvInteger", "MatMulNBits")
LONGEST = 500  # characters of a formula


def operations(path: Path, sizes: Mapping[str, int]) -> tuple[int, int]:
    """Additions and multiplications of the products in a graph, when its axes have these sizes.

    Counted are MatMul, Gemm, Conv, MatMulNBits and their integer kin, the experts that tokens pick,
    and attention where the graph states the shapes; all else is little beside them.

    Returns:
        2 * rows * columns * inner length of each product, added up, and how many products lack a
        shape: they are taken to have as many rows as the graph's first output.

    Raises:
        BadArtifacts: the file is no readable graph.
    """
    graph = graph_nodes.read(path)
    shapes = _Shapes(graph, sizes)
    products = [  # what lies in the branches of an If is not counted
        node
        for node in graph.nodes
        if node.depth == 0 and _kind(node) in KINDS and len(node.inputs) > 1 and node.outputs
    ]
    counts = [_operations(node, shapes) for node in products]
    unsure = [node for node, count in zip(products, counts, strict=True) if count is None]
    rows = shapes.rows()
    guessed = [_operations(node, shapes, rows) or 0 for node in unsure]
    return sum(count for count in counts if count) + sum(guessed), len(unsure)


def size(axis: int | str, sizes: Mapping[str, int]) -> int | None:
    """An axis as a number: one itself, a name of `sizes`, or a formula "(frames//16) + 1" of them.

    None when it cannot be told.
    """
    if isinstance(axis, int):
        return axis
    try:
        number = _value(ast.parse(axis[:LONGEST], mode="eval").body, sizes)
    except (SyntaxError, ValueError, KeyError, ZeroDivisionError, RecursionError):
        return None
    return number if 0 <= number < 2**63 else None


def _value(node: ast.expr, sizes: Mapping[str, int]) -> int:
    if isinstance(node, ast.Constant) and type(node.value) is int:
        return node.value
    if isinstance(node, ast.Name):
        return sizes[node.id]
    if isinstance(node, ast.BinOp):
        left, right = _value(node.left, sizes), _value(node.right, sizes)
        if isinstance(node.op, ast.Add):
            return left + right
        if isinstance(node.op, ast.Sub):
            return left - right
        if isinstance(node.op, ast.Mult):
            return left * right
        if isinstance(node.op, ast.FloorDiv):
            return left // right
    raise ValueError("no formula of whole numbers")


class _Shapes:
    """The shapes that a graph states, with numbers in the place of its axes."""

    def __init__(self, graph: Graph, sizes: Mapping[str, int]) -> None:
        self.graph, self.sizes = graph, sizes

    def axes(self, name: str) -> list[int | None] | None:
        """The axes of a tensor, None for each that cannot be told; None where none is stated."""
        port = self.graph.types.get(name)
        return None if port is None else [size(axis, self.sizes) for axis in port.axes]

    def rows(self) -> int | None:
        """Rows of the graph's first output; None when its shape is not known."""
        axes = self.axes(next(iter(self.graph.file.outputs), "")) or [None, None]
        known = [axis for axis in axes[:-1] if axis is not None]
        return prod(known) if len(known) == len(axes) - 1 else None

    def known(self, name: str, unknown: int | None) -> list[int] | None:
        """The shape of a tensor, `unknown` standing for an axis that cannot be told."""
        axes = [unknown if axis is None else axis for axis in self.axes(name) or [None]]
        known = [axis for axis in axes if axis is not None]
        return known if len(known) == len(axes) and name in self.graph.types else None


def _operations(node: Node, shapes: _Shapes, unknown: int | None = None) -> int | None:
    """Operations of one product; None when a shape is not known.

    `unknown` stands for an axis of unknown size.
    """
    a, b, result = (shapes.known(n, unknown) for n in (*node.inputs[:2], node.outputs[0]))
    kind = _kind(node)
    if kind in ATTENTION:  # of every query with every key, and with every value
        return None if not a or not b or len(b) < 2 else 4 * prod(a) * b[-2]
    if kind in EXPERTS:  # a token passes k of them: gates and ups, and half as many down again
        both = shapes.known(node.inputs[2], unknown)
        return None if not a or not both else 3 * prod(a) * node.number("k", 1) * both[1]
    if kind == "MatMulNBits":
        rows = a[:-1] if a else result[:-1] if result else None
        return None if rows is None else 2 * prod(rows) * node.number("N", 0) * node.number("K", 0)
    if result is None:
        return None
    if kind.startswith("Conv"):
        return None if not b else 2 * prod(result) * prod(b[1:])
    if kind == "Gemm":  # either operand may be transposed
        return None if not b or not result[-1] else 2 * prod(result) * (prod(b) // result[-1])
    inner = a[-1] if a else b[-2] if b and len(b) > 1 else None
    return None if inner is None else 2 * prod(result) * inner


def _kind(node: Node) -> str:
    return node.op.rpartition("::")[2]
