"""alm verify, alm unpack: one file instead of a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from alm.cli import terminal
from alm.cli.arguments import Debug

File = Annotated[Path, typer.Argument(metavar="FILE.alm", help="What alm pack wrote.")]


def verify(
    file: File,
    key: Annotated[
        Path | None, typer.Option("--key", metavar="PUB", help="The public key that signed it.")
    ] = None,
    debug: Debug = False,
) -> None:
    """Hold every byte of a packed model against its list, and the list against a public key."""
    from alm.packing.check import check

    terminal.speak_utf8()
    found = check(file, key, terminal.tell)
    signed = "not signed"
    if found.signer:
        signed = f"signed by {found.signer}"
        signed += "" if found.trusted else ", which was held against no key: give --key PUB"
    print(f"{file}: {found.members} members as they were packed, {signed}")


def unpack(
    file: File,
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A new folder.")],
    debug: Debug = False,
) -> None:
    """Make a folder of a packed model, where something wants one: engines, OpenVINO, Triton."""
    from alm.packing import unpack as unpacking

    terminal.speak_utf8()
    count = unpacking.unpack(file, folder, terminal.tell)
    print(f"{folder}: {count} files")
