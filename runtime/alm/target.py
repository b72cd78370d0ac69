"""What a target's file holds, as plain data: what the engine takes, and how an engine is built."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

FLOATS = ("float32", "float16", "bfloat16")
INTEGERS = ("int32", "int64")
ANYTHING = ("*",)


@dataclass(frozen=True)
class Operator:
    """What a backend wants of an operator.

    `types` are those of input `data`; `constant` are inputs whose values must be known when the
    engine is built, `absent` those that must be left out. Of the outputs no more than `outputs`
    may be there (0: any number). `ranks` gives how many axes an input has, `attributes` the only
    value that an attribute may have (None: it is left out); one that is not written has it.
    `static` are (input, axis) whose length must be a number.
    """

    types: tuple[str, ...] = ANYTHING
    data: int = 0
    constant: tuple[int, ...] = ()
    absent: tuple[int, ...] = ()
    outputs: int = 0
    ranks: Mapping[int, int] | None = None
    attributes: Mapping[str, int | float | str | None] | None = None
    static: tuple[tuple[int, int], ...] = ()
    since: tuple[int, int] = (0, 0)  # the backend's version that takes it first
    note: str = ""  # what a restriction comes from, where that is not the table itself


@dataclass(frozen=True)
class Limits:
    """What the parser and the builder of a backend take; an empty `operators` is any of `domains`.

    `source` is where the table of operators comes from. `quantized` are the types that may be
    dequantized, `ports` those of inputs and outputs ((): any). `blocks_opset` is one more opset,
    for graphs that hold weights in blocks, which none before 21 can.
    """

    backend: str
    source: str
    opsets: tuple[int, int]
    domains: tuple[str, ...] = ("",)
    operators: Mapping[str, Operator] | None = None
    quantized: tuple[str, ...] = ()
    ports: tuple[str, ...] = ()
    blocks_opset: int = 0
    profiles: bool = False  # every dynamic axis needs its least, usual and most
    symmetric: bool = False  # zero points are zero, scales positive and each of one node
    static_shapes: bool = False  # shapes may follow from shapes, and not from values
    fused_attention: bool = False  # Attention without a fused kernel must be allowed to fall apart
    # Products whose int8 weights overflow on some processors, and which input the weights are.
    overflows: Mapping[str, int] | None = None

    def has(self, op: str) -> bool:
        """Whether the backend has an operator, "domain::Name", or the name alone of ONNX's own."""
        if self.operators is not None:
            return op in self.operators
        return op.rpartition("::")[0] in self.domains

    def newest_opset(self, dequantizes: bool) -> int:
        """The newest opset of a graph that dequantizes weights, or of one that does not."""
        return max(self.opsets[1], self.blocks_opset if dequantizes else 0)


@dataclass(frozen=True)
class Build:
    """How an engine is made of the graphs.

    `where` is "device" when an engine belongs to the machine that built it, else "anywhere".
    """

    package: str  # Python's name of the builder
    version: str  # what the target ships, or what was tried
    where: str
    strongly_typed: bool = True  # precision is in the graph and in no flag
