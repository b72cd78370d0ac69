"""What the commands print: tables that keep their rows whole in a pipe, and bytes for people."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from alm.parsing import printable

WIDE = 1000  # columns of a pipe or a file: nothing is folded there
WIDEST = 20_000  # characters of a cell


def size(count: int) -> str:
    """Bytes for people: 950 B, 1.2 MB, 3.4 GB."""
    for unit, least in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= least:
            return f"{count / least:.1f} {unit}"
    return f"{count} B"


def printer() -> Callable[[str, str, Iterable[Sequence[str]]], None]:
    """What prints a table to stdout: called with its title, "column|>of numbers", and its rows."""
    from rich.console import Console

    # A manifest's text is shown as it is: no markup, no :emoji:.
    width = None if sys.stdout.isatty() else WIDE
    console = Console(highlight=False, markup=False, emoji=False, width=width)

    def table(title: str, columns: str, rows: Iterable[Sequence[str]]) -> None:
        _table(console, title, columns.split("|"), list(rows))

    return table


def _table(console: Any, title: str, columns: Sequence[str], rows: list[Sequence[str]]) -> None:
    """One table. A column with ">" is of numbers; only the last one folds when there is no room."""
    from rich.table import Table
    from rich.text import Text

    if not rows:
        return
    if title:
        console.print()
        console.print(title.upper())
    table = Table(box=None, pad_edge=False, show_header=bool(title) and any(columns))
    for column in columns:
        last = column is columns[-1]
        table.add_column(
            column.removeprefix(">"),
            justify="right" if column.startswith(">") else "left",
            no_wrap=not last,
            overflow="fold",
        )
    for row in rows:
        table.add_row(*(Text(printable(cell, WIDEST)) for cell in row))
    with console.capture() as shown:
        console.print(table)
    for line in shown.get().splitlines():
        print(line.rstrip())
