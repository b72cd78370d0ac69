"""What `alm bench` found, for people: tables and a picture."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from alm.bench import drawing
from alm.cli import terminal


def show(report: Mapping[str, Any]) -> None:
    """Print it all to stdout."""
    table = terminal.printer()
    table("", "|", _about(report))
    runs = [("cold", report["cold"]), *((clip["clip"], clip) for clip in report["clips"])]
    heads = "|".join([">" + name for name, _ in runs])
    table("milliseconds by stage, p50 of warm runs", f"stage|{heads}|", _stages(runs))
    table(
        "decoder by context", "context|>prefill ms|>ms/token p50|>p90|>tokens/s|", _contexts(report)
    )
    table(
        "against this machine",
        "stage|>bytes|>GFLOP|>memory ms|>compute ms|>measured ms|>reached|bound",
        _roofline(report),
    )
    table("memory, MB", "when|>resident|>own|>of files|>peak|", _memory(report))
    for note in report["notes"]:
        print(f"note: {note}")


def picture(report: Mapping[str, Any]) -> str:
    """An SVG: a bar for each clip, its stages in the order in which they run."""
    rows = [(clip["clip"], _shares(clip)) for clip in report["clips"]]
    title = f"{report['model']['family']} on {report['machine']['processor']}: where the time goes"
    return drawing.bars(title, rows)


def _shares(clip: Mapping[str, Any]) -> dict[str, float]:
    """Milliseconds by stage that add up to the whole: what ran side by side shares its time."""
    means = {name: spread["mean"] for name, spread in clip["stages"].items()}
    parts = {name: ms for name, ms in means.items() if name in clip["parts"]}
    both = sum(parts.values())
    factor = 1 - clip["overlap_ms"] / both if both else 1.0
    return {name: ms * factor if name in parts else ms for name, ms in means.items()}


def _about(report: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    machine, model = report["machine"], report["model"]
    yield "machine", f"{machine['processor']}, {machine['usable_cores']} cores, {machine['system']}"
    yield (
        "reads and computes",
        f"{machine['bytes_per_second'] / 1e9:.1f} GB/s, "
        f"{machine['operations_per_second'] / 1e9:.0f} GFLOP/s in float32 (numpy, its own threads)",
    )
    threads = f"threads: {model['threads'] or 'its own choice'}"
    yield "model", f"{model['folder']}: {model['family']}, {terminal.size(model['bytes'])}"
    yield "backend", f"{model['provider']}, {threads}"
    yield "load", f"{report['load_ms']:.0f} ms"


def _stages(runs: Sequence[tuple[str, Mapping[str, Any]]]) -> Iterator[tuple[str, ...]]:
    """A row a stage, a column a run."""
    names = list(dict.fromkeys(name for _, run in runs for name in run["stages"]))

    def row(label: str, cells: Sequence[str]) -> tuple[str, ...]:
        return (label, *cells, "")

    for name in names:
        yield row(name, [_ms(run["stages"].get(name, {}).get("p50")) for _, run in runs])
    if any(run["overlap_ms"] for _, run in runs):
        yield row("- side by side", [_ms(run["overlap_ms"]) for _, run in runs])
    yield row("total", [_ms(run["total"]["p50"]) for _, run in runs])
    yield row("total p90", [_ms(run["total"]["p90"]) for _, run in runs])
    yield row("first token", [_ms(run["first_token"]["p50"]) for _, run in runs])
    yield row("first token p90", [_ms(run["first_token"]["p90"]) for _, run in runs])
    yield row("per token", [_ms(run["per_token"]["p50"]) for _, run in runs])
    yield row("per token p90", [_ms(run["per_token"]["p90"]) for _, run in runs])
    yield row("windows", [str(run["windows"]) for _, run in runs])
    yield row("prompt tokens", [str(run["prompt_tokens"]) for _, run in runs])
    yield row("new tokens", [str(run["new_tokens"]) for _, run in runs])
    yield row(
        "real time factor", [f"{run['total']['p50'] / run['seconds'] / 1e3:.3g}" for _, run in runs]
    )


def _contexts(report: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    for row in report["contexts"]:
        prefill, step = row["prefill"]["p50"], row["per_token"]
        speed = f"{row['tokens_per_second']:.1f}"
        yield str(row["context"]), _ms(prefill), _ms(step["p50"]), _ms(step["p90"]), speed, ""


def _roofline(report: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    for row in report["roofline"]:
        yield (
            row["stage"],
            terminal.size(row["bytes"]),
            f"{row['operations'] / 1e9:.3g}",
            *(_ms(row[name]) for name in ("memory_ms", "compute_ms", "measured_ms")),
            "-" if row["reached"] is None else f"{row['reached']:.0%}",
            row["bound"],
        )


def _memory(report: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    for when, sizes in report["memory"].items():
        names = ("resident", "own", "of_files", "peak")
        yield (when.replace("_", " "), *(_megabytes(sizes[name]) for name in names), "")


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}" if value < 10 else f"{value:.0f}"


def _megabytes(count: int | None) -> str:
    return "-" if count is None else f"{count / 1e6:.0f}"
