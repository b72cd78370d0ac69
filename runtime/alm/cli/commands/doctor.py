"""alm doctor: this device proves that it runs a folder as the original ran."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from alm.cli import exit_status, terminal
from alm.cli.arguments import Debug
from alm.hub import local
from alm.parsing import numbers

MOST_THREADS = 4096


def doctor(
    folder: Annotated[
        Path,
        typer.Argument(metavar="DIR", help="What export.py or alm pack wrote, or hub:org/name."),
    ],
    provider: Annotated[
        list[str] | None,
        typer.Option(help="Only this one; may be repeated. All that can run here if none is said."),
    ] = None,
    threads: Annotated[
        str, typer.Option(metavar="N,N", help="On the processor; one and all cores if unsaid.")
    ] = "",
    as_json: Annotated[
        bool, typer.Option("--json", help="Print everything as data, and no tables.")
    ] = False,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="Write everything as JSON there.")
    ] = None,
    debug: Debug = False,
) -> int:
    """Hold this device against the original: files, parts, whole runs, sound, memory, versions.

    Exit status 1 where something is wrong; the first stage that is, and what to do, come last.
    """
    from alm.cli.reports import doctor_tables
    from alm.doctor.examine import examine, first_wrong

    terminal.check_out(out)
    terminal.speak_utf8()
    counts = numbers(threads, "threads", int, 0, MOST_THREADS) if threads else ()
    found = [*examine(local.folder(folder), provider or (), counts, terminal.tell)]
    first = first_wrong(found)
    data: dict[str, Any] = {"format": "alm-doctor", "format_version": 1, "good": first is None}
    data |= {"findings": [finding.to_json() for finding in found]}
    terminal.give(data, as_json, out, lambda: doctor_tables.show(found, first))
    return exit_status.FAILED if first else 0
