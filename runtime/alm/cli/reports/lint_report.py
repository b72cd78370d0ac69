"""The report of a lint: a table for people, or one JSON object."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from alm.cli import terminal
from alm.cli.terminal import printer
from alm.lint import Finding, Verdict, lint


def show(
    folder: Path,
    target: str,
    parts: Sequence[str] = (),
    as_json: bool = False,
    out: Path | None = None,
) -> int:
    """Print what is wrong with the graphs in `folder` for `target`; write it to `out` as JSON too.

    Returns:
        0, or 1 when something would not build.
    """
    verdict = lint(folder, target, parts)
    terminal.give(_data(verdict), as_json, out, lambda: table(verdict))
    return 1 if verdict.refused else 0


def table(verdict: Verdict) -> None:
    """The findings go to stdout, the sum of them to stderr."""
    draw = printer()
    for refused, title in ((True, "will not build"), (False, "good to know")):
        rows = _rows([f for f in verdict.findings if f.refused == refused])
        draw(title, "part|node|>nodes|rule|what there is|way out|source", rows)
    print(f"note: {summary(verdict)}", file=sys.stderr)


def summary(verdict: Verdict) -> str:
    """One sentence: what was looked at, and whether it would build."""
    parts = "1 part" if len(verdict.parts) == 1 else f"{len(verdict.parts)} parts"
    looked, goal = f"{verdict.nodes} nodes of {parts}", f"{verdict.target} ({verdict.backend})"
    if not verdict.refused:
        return f"{looked} keep the rules of {goal}"
    broken = dict.fromkeys(f.rule for f in verdict.findings if f.refused)
    return f"of {looked} some do not keep the rules of {goal}: {', '.join(broken)}"


def _rows(findings: Sequence[Finding]) -> list[tuple[str, ...]]:
    """Findings that differ in the node alone share a row, with the first node and their number."""
    groups: dict[Finding, dict[str, int]] = {}
    for finding in findings:
        alike = replace(finding, node="", nodes=0)
        groups.setdefault(alike, {})[finding.node] = finding.nodes  # a node breaks a rule once
    return [
        (f.part, next(iter(nodes)), str(sum(nodes.values()) or "-"), f.rule, *_why(f))
        for f, nodes in groups.items()
    ]


def _why(finding: Finding) -> tuple[str, str, str]:
    return finding.what, finding.way_out, finding.source


def _data(verdict: Verdict) -> dict[str, object]:
    plain = asdict(verdict)
    return {"format": "alm-lint", "format_version": 1, "refused": verdict.refused} | plain
