"""Where tensors come from: constants, shapes of inputs, or what the inputs hold."""

from __future__ import annotations

from dataclasses import dataclass

from alm.onnxfile.graph_nodes import Graph

SHAPES = ("Shape", "Size")  # give numbers that follow from shapes alone


@dataclass(frozen=True)
class Flow:
    """Names of tensors: `fixed` follow from constants, `held` from the values of inputs."""

    fixed: frozenset[str]
    held: frozenset[str]


def follow(graph: Graph) -> Flow:
    """Go through the nodes once; what a subgraph's own inputs bring counts as neither."""
    fixed, held = set(graph.constants), set(graph.file.inputs)
    for node in graph.nodes:
        inputs = [name for name in node.inputs if name]
        if node.op in SHAPES:
            # A shape without dynamic axes is a constant to whoever builds.
            axes = graph.axes(inputs[0]) if inputs else None
            if axes is not None and all(isinstance(axis, int) for axis in axes):
                fixed.update(node.outputs)
            continue
        if not held.isdisjoint(inputs):
            held.update(node.outputs)
        elif fixed.issuperset(inputs) and not node.op.startswith("Random"):
            fixed.update(node.outputs)
    return Flow(frozenset(fixed - {""}), frozenset(held - {""}))
