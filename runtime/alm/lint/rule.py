"""A rule, the case that it judges, and the breaches that it yields."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import ModuleType

import numpy as np

from alm.artifacts.manifest import Part
from alm.lint import dataflow
from alm.onnxfile import constants
from alm.onnxfile.graph_nodes import Graph, Node, Tensor
from alm.precision import Levers, Wanted
from alm.target import Limits
from alm.targets import find_lever


@dataclass(frozen=True)
class Breach:
    """Something a target does not take: which node or port, what it is, and the way out."""

    node: str
    what: str
    way_out: str
    source: str = ""  # where the rule's own does not fit
    nodes: int = 1  # that this breach stands for; 0 where it is the whole graph


@dataclass(frozen=True)
class Case:
    """A graph before its judge. `path` is the graph's file; its external data lies beside it."""

    part: Part
    path: Path
    graph: Graph
    target: str
    goal: ModuleType  # the target's file
    levers: Levers = field(default_factory=dict)  # precisions that there are

    @property
    def limits(self) -> Limits:
        """What the target takes."""
        return self.goal.LIMITS

    def fewer_bits(self, bits: int) -> str:
        """The exporter's option for weights of so many bits that the target takes.

        Where no lever has them, those of 16 bits are taken.
        """
        names = (find_lever(self.goal, "decoder", self.levers, Wanted(n)) for n in (bits, 16))
        name = next(filter(None, names), "")
        if not name:
            return f"--target {self.target} --precision auto"
        return f"--precision {self.part.name}={name}"

    @property
    def nodes(self) -> tuple[Node, ...]:
        """All nodes, also those of subgraphs."""
        return self.graph.nodes

    def of(self, *kinds: str) -> Iterator[Node]:
        """The nodes of these operators."""
        return (node for node in self.nodes if node.op in kinds)

    def values(self, tensor: Tensor) -> np.ndarray | None:
        """A constant's values, flat; None for a type that no rule looks into."""
        return constants.read(self.path, tensor)

    @cached_property
    def flow(self) -> dataflow.Flow:
        """Which tensors follow from constants, and which from what the inputs hold."""
        return dataflow.follow(self.graph)


Check = Callable[[Case], Iterator[Breach]]


@dataclass(frozen=True)
class Rule:
    """One thing that a target may not take.

    `refused` is False where a build goes on and something must be known about it all the same.
    """

    name: str
    requirement: str
    source: str
    check: Check
    refused: bool = True


def rule(name: str, requirement: str, source: str, refused: bool = True) -> Callable[[Check], Rule]:
    """Make a rule of the function that finds what breaks it."""
    return lambda check: Rule(name, requirement, source, check, refused)


def called(node: Node) -> str:
    """How a node is named in a report: some graphs leave names out, never outputs."""
    return node.name or next(filter(None, node.outputs), node.op)
