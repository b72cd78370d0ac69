"""What a run of bench/gpu.py found out, as a page."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from bench.beside.gpu_steps import OK, Row

STAGES_LEFT_OUT = ("prompt", "decode_audio", "windows", "detokenise")  # of the processor


def page(name: str, machine: dict[str, Any], rows: Sequence[Row]) -> str:
    """The page in Markdown."""
    lines = [f"# {name}", "", *(f"- {key}: {value}" for key, value in machine.items() if value)]
    lines += ["", "## Answers", "", *answers(rows)]
    lines += ["", "## Stages", "", *stages(rows)]
    lines += ["", "## Against the original", "", *doctors(rows)]
    lines += ["", "## Every step", "", *steps(rows)]
    return "\n".join(lines) + "\n"


def answers(rows: Iterable[Row]) -> list[str]:
    """How long a warm answer takes: median, and the 90th percentile behind it."""
    head = ("model", "provider", "clip s", "load ms", "first answer ms", "TTFT ms", "TPOT ms")
    made: list[tuple[str, ...]] = []
    for row, told in _benched(rows):
        peak = told["memory"]["after_runs"].get("peak") or 0
        opened = f"{told['load_ms']:.0f}", f"{told['cold']['total']['p50']:.1f}"
        size = (f"{peak / 1e6:.0f}", "" if row.gpu_mb is None else f"{row.gpu_mb:.0f}")
        for warm in told["clips"]:
            times = (_spread(warm[key]) for key in ("first_token", "per_token", "total"))
            made.append((row.model, row.provider, _seconds(warm), *opened, *times, *size))
    return table((*head, "answer ms", "memory MB", "GPU MB"), made)


def stages(rows: Iterable[Row]) -> list[str]:
    """Milliseconds of every stage of a warm answer."""
    made = [
        (row.model, row.provider, _seconds(warm), stage, _spread(took))
        for row, told in _benched(rows)
        for warm in told["clips"]
        for stage, took in warm["stages"].items()
        if stage not in STAGES_LEFT_OUT
    ]
    return table(("model", "provider", "clip s", "stage", "ms"), made)


def doctors(rows: Iterable[Row]) -> list[str]:
    """What `alm doctor` said, part by part, and where the nodes ran."""
    made: list[tuple[str, ...]] = []
    for row in rows:
        if row.step != "doctor":
            continue
        found = row.found.get("findings", [])
        nodes = {f["subject"]: f.get("what", "") for f in found if f["check"] == "nodes"}
        for finding in found:
            if finding["check"] not in ("vectors", "runs"):
                continue
            worst, allowed = (_error(finding.get(key)) for key in ("worst", "allowed"))
            subject, threads = finding["subject"], finding.get("threads")
            way = row.provider + (f", {threads} threads" if threads else "")
            where = nodes.get(subject, "")
            made.append((row.model, way, subject, finding["verdict"], worst, allowed, where))
    head = ("model", "provider", "part or run", "verdict", "worst", "allowed", "nodes")
    return table(head, made)


def steps(rows: Iterable[Row]) -> list[str]:
    """All steps in their order, those that failed with their error."""
    made = [
        (row.step, row.model, row.provider, row.verdict, f"{row.seconds:.1f}", row.why)
        for row in rows
    ]
    return table(("step", "model", "provider", "verdict", "s", "why"), made)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Lines of a table; "nothing" where there is no row."""
    lines = [f"| {' | '.join(_cell(cell) for cell in row)} |" for row in rows]
    if not lines:
        return ["nothing"]
    return [f"| {' | '.join(head)} |", "|" + "---|" * len(head), *lines]


def _benched(rows: Iterable[Row]) -> Iterator[tuple[Row, dict[str, Any]]]:
    return ((row, row.found) for row in rows if row.step == "bench" and row.verdict == OK)


def _seconds(clip: dict[str, Any]) -> str:
    return f"{clip['seconds']:.1f}"


def _spread(took: dict[str, float]) -> str:
    return f"{took['p50']:.2f} ({took['p90']:.2f})"


def _error(value: float | None) -> str:
    return "" if value is None else f"{value:.1e}"


def _cell(text: str) -> str:
    return text.replace("|", "/").replace("\n", " ")
