"""The tables of alm doctor."""

from __future__ import annotations

import math
from collections.abc import Sequence

from alm.cli.terminal import printer
from alm.doctor.finding import NOTE, OK, Finding

TITLES = {
    "files": "files",
    "audio": "sound",
    "machine": "machine",
    "vectors": "parts against the original",
    "determinism": "twice the same",
    "denormals": "very small numbers",
    "nodes": "where nodes run",
    "tokenizer": "tokenizer",
    "runs": "whole runs against the original",
}
MEASURED = ("vectors", "runs")


def show(findings: Sequence[Finding], first: Finding | None) -> None:
    """Print the findings, kind by kind, and what is to be done."""
    draw = printer()
    for check, title in TITLES.items():
        some = [finding for finding in findings if finding.check == check]
        if check in MEASURED:
            columns = "part|provider|>threads|>worst|>allowed|>ms|verdict|what there is"
            draw(title, columns, [(f.subject, *_numbers(f), f.verdict, f.what) for f in some])
        else:
            rows = [(f.subject, f.verdict, f.what) for f in some]
            draw(title, "what|verdict|what there is", [*dict.fromkeys(rows)])
    advice = [(f.subject, f.way_out) for f in findings if f.way_out and f.verdict != OK]
    draw("what to do", "about|", [*dict.fromkeys(advice)])
    print()
    print(summary(findings, first))


def summary(findings: Sequence[Finding], first: Finding | None) -> str:
    """One sentence: whether this device runs the folder as the original ran."""
    if first is None:
        notes = sum(finding.verdict == NOTE for finding in findings)
        beside = f"; {notes} note{'s' * (notes > 1)}" if notes else ""
        proved = sum(f.verdict == OK and f.check in MEASURED for f in findings)
        return f"all is as it should be: {proved} comparisons with the original agree{beside}"
    where = f" on {first.provider}" if first.provider else ""
    threads = f" with {first.threads} thread{'s' * (first.threads > 1)}" if first.threads else ""
    wrong = sum(finding.wrong for finding in findings)
    others = f" ({wrong - 1} more after it)" if wrong > 1 else ""
    return f"the first that is wrong is {first.check} of {first.subject}{where}{threads}{others}"


def _numbers(finding: Finding) -> tuple[str, ...]:
    def shown(value: float | None) -> str:
        if value is None:
            return "-"
        return "not finite" if math.isinf(value) else f"{value:.1e}"

    threads = "-" if finding.threads is None else str(finding.threads or "its own")
    ms = "-" if finding.ms is None else f"{finding.ms:.1f}"
    numbers = (shown(finding.worst), shown(finding.allowed))
    return finding.provider or "-", threads, *numbers, ms
