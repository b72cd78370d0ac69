"""Rules about shapes: known from the inputs' shapes alone, and within stated bounds."""

from __future__ import annotations

from collections.abc import Iterator

from alm.lint.rule import Breach, Case, called, rule
from alm.ports import Port

# How much comes out of these depends on what goes in.
COUNTING = ("NonZero", "Unique", "Compress", "NonMaxSuppression", "StringSplit")
# Inputs that give the size of the output.
SHAPING = {
    "Reshape": (1,), "Expand": (1,), "ConstantOfShape": (0,), "Tile": (1,), "Pad": (1,),
    "Range": (0, 1, 2), "Slice": (1, 2, 4), "Split": (1,), "Resize": (2, 3), "TopK": (1,),
    "OneHot": (1,), "CenterCropPad": (1,), "Upsample": (1,),
}  # fmt: skip
BATCH = "batch"  # its profile is chosen when the engine is built


@rule(
    "data-dependent",
    "shapes follow from the inputs' shapes, never from what they hold",
    "TensorRT#4010, TensorRT#2285; TensorRT-RTX#32: NonZero has no runner",
)
def data_dependent(case: Case) -> Iterator[Breach]:
    for node in case.nodes if case.limits.static_shapes else ():
        if node.op in COUNTING:
            what = f"how much {node.op} gives depends on what its input holds"
            yield Breach(called(node), what, "compute a mask, or the indices on the host")
        for number in SHAPING.get(node.op, ()):
            name = node.input(number)
            if name and name in case.flow.held:
                what = f"{node.op} takes its size from {name}, which follows from an input's values"
                yield Breach(called(node), what, "take it from a shape, or mask what is too much")


@rule(
    "static-axis",
    "the room of a cache is a number",
    "TensorRT-RTX 1.7.1: the KV cache tensor must have a static sequence length dimension",
    refused=False,
)
def static_axis(case: Case) -> Iterator[Breach]:
    table = case.limits.operators or {}
    for node in case.nodes:
        for number, axis in table[node.op].static if node.op in table else ():
            axes = case.graph.axes(node.input(number)) or ()
            if axis < len(axes) and not isinstance(axes[axis], int):
                what = f"axis {axis} of what {node.op} writes to is dynamic ({axes[axis] or '?'})"
                way = "build with alm build, which makes a number of it"
                yield Breach(called(node), what, way)


@rule(
    "profile",
    "every dynamic axis of an input has its least, usual and most in the manifest",
    "TensorRT's guide to dynamic shapes: an optimization profile states each of them",
)
def profile(case: Case) -> Iterator[Breach]:
    way = f"export the part again with --target {case.target}"
    for name, port in case.graph.file.inputs.items() if case.limits.profiles else ():
        if case.graph.axes(name) is None:
            yield Breach(name, "it says nothing of its shape", way)
            continue
        for axis in (axis for axis in _axes(case, name, port) if isinstance(axis, str)):
            span = case.part.spans.get(axis)
            if axis == BATCH and span is None:
                continue
            if span is None:
                what = f"its axis {axis or 'without a name'} has no profile"
                yield Breach(name, what, way)
            elif not 0 <= span.least <= span.usual <= span.most or not span.most:
                lengths = f"{span.least}, {span.usual}, {span.most}"
                yield Breach(name, f"the profile of its axis {axis} is {lengths}", way)


def _axes(case: Case, name: str, port: Port) -> tuple[int | str, ...]:
    """As the manifest names them: a graph that onnxsim wrote may have lost the names."""
    stated = case.part.inputs.get(name)
    return stated.axes if stated is not None and len(stated.axes) == len(port.axes) else port.axes
