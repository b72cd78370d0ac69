"""What a person sees of an export: a line per part as it goes, a table at the end."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.table import Table

from alm.artifacts.manifest import Part
from alm.cli.terminal import size
from exporters.parity import EXACT
from exporters.part import Exported

COLUMNS = (
    *("part", "nodes", "size", "precision", "worst error", "relative", "rms", "verdict"),
    "seconds",
)
WIDE = 120  # columns of a pipe or a file, and of the table in a narrower terminal
LEFT = ("part", "precision", "verdict")


class Report:
    """Progress on stderr, the table on stdout; plain lines when stderr is no terminal."""

    def __init__(self) -> None:
        self.console = Console(stderr=True, highlight=False)
        self.out = Console(highlight=False, soft_wrap=True, width=max(self.console.width, WIDE))

    @contextmanager
    def part(self, name: str, number: int, count: int) -> Iterator[Progress]:
        """A part under work; its steps are shown as they happen."""
        label = f"[{number}/{count}] {name}"
        progress = Progress(self.console, label)
        if not self.console.is_terminal:
            yield progress
            return
        with self.console.status(label) as status:
            progress.status = status
            yield progress

    def done(self, name: str, result: Exported) -> None:
        """One line for a finished part."""
        self.console.print(
            f"{name}: {size(result.part.bytes)}, {result.seconds:.1f} s, {_verdict(result.part)}"
            f"{_answers(result.part)}"
        )

    def note(self, text: str) -> None:
        """Something the person should know."""
        self.console.print(f"note: {text}", soft_wrap=True)

    def table(self, results: Sequence[Exported]) -> None:
        """Part, nodes, bytes, precision, errors against torch, verdict, seconds."""
        table = Table(box=None, pad_edge=False)
        for title in COLUMNS:
            justify = "left" if title in LEFT else "right"
            table.add_column(title, justify=justify, no_wrap=True)
        for result in results:
            part = result.part
            parity = part.measured["parity"]
            errors = [f"{parity[name]:.1e}" for name in ("worst_abs", "worst_rel", "rms")]
            row = [part.name, str(part.nodes or "-"), size(part.bytes), part.precision]
            table.add_row(*row, *errors, _verdict(part), f"{result.seconds:.1f}")
        self.out.print(table)


class Progress:
    """Prints what is being done to one part."""

    def __init__(self, console: Console, label: str) -> None:
        self.console, self.label = console, label
        self.status: Any = None

    def __call__(self, step: str) -> None:
        line = f"{self.label}: {step}"
        if self.status is not None:
            self.status.update(line)
        if self.status is None or step.startswith("kept"):  # what must not scroll out of the status
            self.console.print(line, soft_wrap=True)


def _verdict(part: Part) -> str:
    """ "exact", or "within 0.3": the most that its levers may cost as root mean square.

    Where ids are made of what the part gives, the share of them that are others follows.
    """
    parity = part.measured["parity"]
    exact = parity["verdict"] == EXACT
    words = [EXACT if exact else f"within {parity['bound']:g}"]
    for name, share in part.measured.get("changed", {}).items():
        words.append(f"{share:.1%} other {name}")
    return ", ".join(words)


def _answers(part: Part) -> str:
    """How a decoder that was fitted to clips answers them; "" of any other part."""
    answers = part.measured.get("answers")
    if not answers:
        return ""
    margins = " for ".join(f"{answers['least_margin'][n]:.2g}" for n in ("graph", "original"))
    faults = [
        f"{answers[fault]['graph']:.0%} {fault} for {answers[fault]['original']:.0%}"
        for fault in ("missing", "circling")
    ]
    return ", ".join(
        [
            f"; of {answers['answers']} answers {answers['equal']:.0%} are as they were",
            *faults,
            f"least margin of the first token over an end {margins}",
        ]
    )
