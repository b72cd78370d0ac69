"""Would an engine build of these graphs? Checked before the device is there.

A file of `rules/` is a group of rules, each a function under `@rule(...)`: writing one is all there
is to it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from alm import registry, targets
from alm.artifacts import verify
from alm.artifacts.manifest import Manifest, Part
from alm.artifacts.manifest import load as load_manifest
from alm.host import containment
from alm.lint import rules
from alm.lint.rule import Case, Rule
from alm.onnxfile import graph_nodes

GRAPH = ".onnx"


@dataclass(frozen=True)
class Finding:
    """A rule that does not hold: where, what there is, the way out, and its source."""

    part: str
    node: str
    rule: str
    what: str
    way_out: str
    source: str
    refused: bool  # False: it builds, and this should be known
    nodes: int = 1  # nodes (or ports) of which this is true; 0 where it is the whole graph


@dataclass(frozen=True)
class Verdict:
    """What was found in so many nodes of so many graphs."""

    target: str
    backend: str
    parts: tuple[str, ...]
    nodes: int
    findings: tuple[Finding, ...]

    @property
    def refused(self) -> bool:
        """Whether something would not build."""
        return any(finding.refused for finding in self.findings)


def all_rules() -> list[Rule]:
    """Every rule there is, in the order of the files and of the functions in them."""
    files = (registry.pick(rules, name) for name in registry.names(rules))
    return [rule for file in files for rule in vars(file).values() if isinstance(rule, Rule)]


def lint(folder: Path, target: str, parts: Sequence[str] = ()) -> Verdict:
    """Hold the graphs in `folder` against the rules of `target`.

    Args:
        folder: what export.py wrote.
        target: a name of `targets.names()`.
        parts: only these; empty for all.

    Raises:
        UnknownName: no such target, or no such part.
        MissingFile, BadArtifacts: something of the folder is not there or not what it should be.
    """
    goal = targets.find(target)
    manifest = load_manifest(folder)
    chosen = [part for part in _chosen(manifest, parts) if part.files[0].name.endswith(GRAPH)]
    findings: list[Finding] = []
    nodes = 0
    for part in chosen:
        name = part.files[0].name
        path = containment.contained(folder, name)
        graph = graph_nodes.read(path)
        verify.check_external(folder, graph.file, name, {file.name for file in part.files})
        nodes += len(graph.nodes)
        findings += examine(Case(part, path, graph, target, goal, manifest.levers))
    names = tuple(part.name for part in chosen)
    return Verdict(target, goal.LIMITS.backend, names, nodes, tuple(findings))


def examine(case: Case) -> Iterator[Finding]:
    """The findings of all rules in one graph."""
    for rule in all_rules():
        for breach in rule.check(case):
            yield Finding(
                case.part.name,
                breach.node,
                rule.name,
                breach.what,
                breach.way_out,
                breach.source or rule.source,
                rule.refused,
                breach.nodes,
            )


def _chosen(manifest: Manifest, names: Sequence[str]) -> list[Part]:
    return [manifest.named(name) for name in names] if names else list(manifest.parts)
