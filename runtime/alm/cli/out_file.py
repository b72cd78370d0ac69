"""Files that a command writes where the user says: --out FILE and the like."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from alm.cli.terminal import json_text
from alm.errors import BadOption, MissingFile


def check(*files: Path | None) -> None:
    """Refuse, before minutes of work, files that cannot be written; None is no file.

    Raises:
        MissingFile: the folder is not there.
        BadOption: there is a folder in the file's place, or the system knows no such name.
    """
    for path in filter(None, files):
        try:
            folder, there = path.is_dir(), path.resolve().parent.is_dir()
        except (OSError, ValueError) as error:  # too long, a NUL in it, or links in a circle
            reason = getattr(error, "strerror", None) or error
            raise BadOption(f"{str(path)!r:.200} cannot be written: {reason}") from error
        if folder:
            raise BadOption(f"{path} is a folder; wanted a file to write to")
        if not there:
            raise MissingFile(f"there is no folder {path.parent} to write {path.name} to")


def write(path: Path, text: str) -> None:
    """Write `text` as UTF-8, through links and into devices too: the user named the place.

    Raises:
        BadOption: the system refused.
    """
    try:
        path.write_text(text, "utf-8")
    except OSError as error:
        raise BadOption(f"{path} cannot be written: {error.strerror or error}") from error


def give(data: Any, as_json: bool, out: Path | None, table: Callable[[], None]) -> None:
    """Print `data` as JSON, or its `table`; write the JSON to `out` if that is wanted.

    Raises:
        BadOption: `out` cannot be written.
    """
    text = json_text(data, indent=1)
    if out:
        write(out, text + "\n")
    print(text) if as_json else table()
