"""The rows of a run as JSON lines, and as a page to read."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from bench.beside.process import QUIET
from bench.beside.shapes import PROMPT, SHAPES, STEPS, WHISPERS

MACHINE = "machine"  # the row that holds its ceilings
CEILINGS = {
    "read_gbs": "GB/s read",
    "fp32_gflops": "GFLOP/s in float32",
    "int8_gflops": "GFLOP/s in int8",
}
Row = dict[str, Any]

PREAMBLE = f"""# Beside others

Random weights of the real shapes on one machine, one process at a time, the passes one after
another. A decoder is given {PROMPT} positions and says {STEPS} tokens, greedily; an encoder is
given one window of 30 s. Medians, and in brackets least and most, over the sequences of all passes;
`by pass` are the medians of each, which tell the drift of the machine from a difference. `x best`
is the ratio to the best of the others. The roofline is the time in which the machine reads the
weights that a token multiplies with. Peak memory counts mapped files; in brackets what is no file.
`off by` is the worst difference of an encoder's output from the original's in float32, as a share
of its largest number; nothing else here says how right an answer is.
"""


def read(file: Path) -> list[Row]:
    """All rows of a file of JSON lines, none if it is not there."""
    return [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []


def forget(file: Path, shape: str, names: Sequence[str]) -> None:
    """Drop these rows of a shape, or all if there are no names, before they are measured again."""
    kept = [r for r in read(file) if r["shape"] != shape or (names and r["row"] not in names)]
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(row) + "\n" for row in kept))


def append(file: Path, row: Row) -> None:
    """Add a row."""
    with file.open("a") as stream:
        stream.write(json.dumps(row) + "\n")


def page(rows: Sequence[Row]) -> str:
    """All shapes of all runs, as markdown."""
    there = [name for name in SHAPES if any(row["shape"] == name for row in rows)]
    return PREAMBLE + "".join(section([r for r in rows if r["shape"] == n], n) for n in there)


def section(rows: Sequence[Row], shape: str) -> str:
    """One shape: where and how it was measured, its tables, and what failed."""
    machines = [row for row in rows if row["row"] == MACHINE and "read_gbs" in row]
    lines = [f"\n## {shape}\n"]
    for said in dict.fromkeys(f"{r['date'][:10]}, {r['machine']}: `{r['command']}`" for r in rows):
        lines.append(f"- {said}")
    for name, unit in CEILINGS.items():
        values = ", ".join(f"{row[name]:.0f}" for row in machines)
        lines.append(f"- {unit}, by pass: {values or 'not measured'}")
    disturbed = [
        f"{row['label']} ({row['others']:.0%}, pass {row['number'] + 1})"
        for row in rows
        if row.get("others", 0.0) > QUIET
    ]
    if disturbed:
        lines.append(f"- **disturbed** by others on the processors: {', '.join(disturbed)}")
    lines.append("")
    bandwidth = max((row["read_gbs"] for row in machines), default=0.0)
    for kind, write in (("decoder", decoders), ("encoder", encoders)):
        good = _together(row for row in rows if row.get("kind") == kind and "failed" not in row)
        if good:
            lines += [f"### {kind.capitalize()}s\n", *write(good, shape, bandwidth), ""]
            lines += [*_costs(good), ""]
    notes = {f"- {row['label']}: {row['note']}" for row in rows if row.get("note")}
    versions = {f"- {row['versions']}" for row in rows if row.get("versions")}
    failed = {f"- {row['label']}: {row['failed']}" for row in rows if "failed" in row}
    for title, said in (("Notes", notes), ("Failed", failed), ("Versions", versions)):
        lines += [f"### {title}\n", *sorted(said), ""] if said else []
    return "\n".join(lines)


def decoders(rows: Sequence[Row], shape: str, bandwidth: float) -> list[str]:
    """Fastest token first."""
    first, token = (_best(rows, key) for key in ("prefill", "step"))
    head = (
        f"| | load s | prefill of {PROMPT}, ms | by pass | x best | ms a token | by pass | x best "
    )
    lines = [
        head + "| MB a token | roofline ms | x roofline | peak MB | files MB |",
        "|---" * 13 + "|",
    ]
    for row in sorted(rows, key=lambda row: statistics.median(_all(row["step"]))):
        steps = row["step"]
        median = statistics.median(_all(steps))
        roof = row["step_mb"] / bandwidth if bandwidth and row["step_mb"] else 0.0
        lines.append(
            f"| {_name(row)} | {row['load_s']:.1f} | {_spread(row['prefill'], 0)} "
            f"| {_passes(row['prefill'], 0)} | {_ratio(row['prefill'], first)} "
            f"| {_spread(steps, 1)} | {_passes(steps, 1)} | {_ratio(steps, token)} "
            f"| {row['step_mb']:.0f} | {roof:.1f} | {f'{median / roof:.2f}' if roof else '-'} "
            f"| {row['peak_mb']:.0f} ({row['anon_mb']:.0f}) | {row['size_mb']:.0f} |"
        )
    return lines


def encoders(rows: Sequence[Row], shape: str, bandwidth: float) -> list[str]:
    """Fastest window first."""
    best, flops = _best(rows, "encode"), WHISPERS[SHAPES[shape].whisper].flops
    lines = [
        "| | load s | 30 s window, ms | by pass | x best | GFLOP/s | off by | peak MB | files MB |",
        "|---" * 9 + "|",
    ]
    for row in sorted(rows, key=lambda row: statistics.median(_all(row["encode"]))):
        rate = flops / 1e6 / statistics.median(_all(row["encode"]))
        worst = f"{row['worst']:.1e}" if "worst" in row else "-"
        lines.append(
            f"| {_name(row)} | {row['load_s']:.1f} | {_spread(row['encode'], 0)} "
            f"| {_passes(row['encode'], 0)} | {_ratio(row['encode'], best)} | {rate:.0f} | {worst} "
            f"| {row['peak_mb']:.0f} ({row['anon_mb']:.0f}) | {row['size_mb']:.0f} |"
        )
    return lines


def _costs(rows: Sequence[Row]) -> list[str]:
    """What making the files took."""
    made = [row for row in rows if row.get("cost")]
    if not made:
        return []
    lines = [
        "| made from the checkpoint in | seconds | others took of the processors | peak MB |",
        "|---|---|---|---|",
    ]
    for row in sorted(made, key=lambda row: row["cost"]["peak_mb"]):
        cost = row["cost"]
        peak = f"{cost['peak_mb']:.0f} ({cost['anon_mb']:.0f})"
        others = f"{cost['others']:.0%}" if "others" in cost else "-"
        lines.append(f"| {_name(row)} | {cost['seconds']:.0f} | {others} | {peak} |")
    return lines


def _together(rows: Iterable[Row]) -> list[Row]:
    """The passes of a row as one: lists of measurements by pass, worst memory, median load."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(row["row"], []).append(row)
    made: list[Row] = []
    for passes in found.values():
        one = dict(passes[-1])
        for key in ("prefill", "step", "encode"):
            if key in one:
                one[key] = [each[key] for each in passes]
        one["load_s"] = statistics.median(each["load_s"] for each in passes)
        for key in ("peak_mb", "anon_mb"):
            one[key] = max(each[key] for each in passes)
        made.append(one)
    return made


def _all(passes: Sequence[Sequence[float]]) -> list[float]:
    return [value for one in passes for value in one]


def _best(rows: Sequence[Row], key: str) -> float:
    """The best median among the others; 0 without any."""
    others = [statistics.median(_all(row[key])) for row in rows if not row["ours"]]
    return min(others, default=0.0)


def _ratio(passes: Sequence[Sequence[float]], best: float) -> str:
    return f"{statistics.median(_all(passes)) / best:.2f}" if best else "-"


def _spread(passes: Sequence[Sequence[float]], digits: int) -> str:
    every = _all(passes)
    median, least, most = statistics.median(every), min(every), max(every)
    return f"{median:.{digits}f} ({least:.{digits}f}-{most:.{digits}f})"


def _passes(passes: Sequence[Sequence[float]], digits: int) -> str:
    return " / ".join(f"{statistics.median(one):.{digits}f}" for one in passes)


def _name(row: Row) -> str:
    return f"**{row['label']}**" if row["ours"] else row["label"]
