"""How many operations a graph takes, from the shapes that it gives of its own tensors."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from math import prod
from mmap import ACCESS_READ, mmap
from pathlib import Path

from alm.onnxfile.summary import Walk
from alm.onnxfile.wire import Span

Axes = tuple[int | str, ...]
LONGEST = 500  # characters of a formula


def operations(path: Path, sizes: Mapping[str, int]) -> tuple[int, int]:
    """Additions and multiplications of the products in a graph, when its axes have these sizes.

    Counted are MatMul, Gemm, Conv, MatMulNBits and their integer kin, and attention where the graph
    says the shapes; all else is little beside them.

    Returns:
        2 * rows * columns * inner length of each product, added up, and how many products say too
        little of their shapes: they are taken to have as many rows as the graph's first output.

    Raises:
        BadArtifacts: the file is no readable graph.
    """
    with path.open("rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as data:
        reader = _Products(path, data)
        reader.model()
    counts = [reader.count_of(node, sizes) for node in reader.products]
    unsure = [node for node, count in zip(reader.products, counts, strict=True) if count is None]
    rows = reader.rows(sizes)
    guessed = [reader.count_of(node, sizes, rows) or 0 for node in unsure]
    return sum(count for count in counts if count) + sum(guessed), len(unsure)


def size(axis: int | str, sizes: Mapping[str, int]) -> int | None:
    """An axis as a number: one itself, a name of `sizes`, or a formula "(frames//16) + 1" of them.

    None when it cannot be told.
    """
    if isinstance(axis, int):
        return axis
    try:
        found = _value(ast.parse(axis[:LONGEST], mode="eval").body, sizes)
    except (SyntaxError, ValueError, KeyError, ZeroDivisionError, RecursionError):
        return None
    return found if 0 <= found < 2**63 else None


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


class _Node:
    """A product: its kind, the names of its inputs and output, its whole-number attributes."""

    def __init__(self) -> None:
        self.kind = ""
        self.inputs: list[str] = []
        self.output = ""
        self.numbers: dict[str, int] = {}


class _Products(Walk):
    """The products of a graph and the shapes of what goes in and out."""

    ATTENTION = ("Attention", "MultiHeadAttention")
    MATRICES = ("MatMul", "MatMulInteger", "FusedMatMul", "Gemm")
    KINDS = (*ATTENTION, *MATRICES, "Conv", "ConvInteger", "MatMulNBits")

    def __init__(self, path: Path, data: mmap) -> None:
        super().__init__(path, data)
        self.products: list[_Node] = []
        self.shapes: dict[str, Axes] = {}
        self.made = ""  # the graph's first output

    def graph(self, span: Span, depth: int) -> tuple[dict, dict]:
        """Only the graph itself; what lies in the branches of an If is not counted."""
        for number, value, end in self.only(span, 1, 5, 11, 12, 13):
            if number == 1:
                self.node((value, end), depth)
            elif number == 5:
                name, dims = self.constant((value, end))
                self.shapes[name] = dims
            else:
                name, port = self.port((value, end))
                self.shapes[name] = port.axes
                self.made = self.made or (name if number == 12 else "")
        return {}, {}

    def node(self, span: Span, depth: int) -> None:
        """Note it, if it is a product."""
        found = _Node()
        for number, value, end in self.only(span, 1, 2, 4, 5):
            if number == 1:
                found.inputs.append(self.text((value, end)))
            elif number == 2:
                found.output = found.output or self.text((value, end))
            elif number == 4:
                found.kind = self.text((value, end))
            elif found.kind in ("", "MatMulNBits"):
                found.numbers |= self.number((value, end))
        if found.kind in self.KINDS and len(found.inputs) > 1:
            self.products.append(found)

    def number(self, span: Span) -> dict[str, int]:
        """An attribute that is a whole number, by its name."""
        name, said = "", -1
        for number, value, end in self.fields(span):
            if number == 1:
                name = self.text((value, end))
            elif number == 3 and end < 0:
                said = value
        return {name: said}

    def constant(self, span: Span) -> tuple[str, Axes]:
        name, dims = "", []
        for number, value, end in self.fields(span):
            if number == 1:
                dims += [value] if end < 0 else self.packed((value, end))
            elif number == 8:
                name = self.text((value, end))
        return name, tuple(dims)

    def rows(self, sizes: Mapping[str, int]) -> int | None:
        """Rows of the graph's first output; None when its shape is not known."""
        axes = [size(axis, sizes) for axis in self.shapes.get(self.made, ("",))[:-1]]
        return None if None in axes else prod(axes)  # pyright: ignore

    def count_of(
        self, node: _Node, sizes: Mapping[str, int], unknown: int | None = None
    ) -> int | None:
        """Operations of one product; None when a shape is not known.

        `unknown` stands for an axis of unknown size.
        """

        def shape(name: str) -> list[int] | None:
            axes = [size(axis, sizes) for axis in self.shapes.get(name, ("", ""))]
            axes = [unknown if axis is None else axis for axis in axes]
            return None if None in axes or name not in self.shapes else axes  # pyright: ignore

        a, b, made = (shape(name) for name in (*node.inputs[:2], node.output))
        if node.kind in self.ATTENTION:  # of every query with every key, and with every value
            return None if not a or not b or len(b) < 2 else 4 * prod(a) * b[-2]
        if node.kind == "MatMulNBits":
            wide, inner = node.numbers.get("N", 0), node.numbers.get("K", 0)
            rows = a[:-1] if a else made[:-1] if made else None
            return None if rows is None else 2 * prod(rows) * wide * inner
        if made is None:
            return None
        if node.kind.startswith("Conv"):
            return None if not b else 2 * prod(made) * prod(b[1:])
        if node.kind == "Gemm":  # either operand may be transposed
            return None if not b or not made[-1] else 2 * prod(made) * (prod(b) // made[-1])
        inner = a[-1] if a else b[-2] if b and len(b) > 1 else None
        return None if inner is None else 2 * prod(made) * inner
