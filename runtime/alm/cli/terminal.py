"""What the commands print, read and write: text, tables, bytes for people, stdin, --out FILE."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from alm.errors import BadAudio, BadOption, MissingFile
from alm.parsing import CONTROL, printable

STDIN = "-"  # a clip's name

WIDE = 1000  # columns of a pipe or a file: nothing is folded there
WIDEST = 20_000  # characters of a cell


def size(count: int) -> str:
    """Bytes for people: 950 B, 1.2 MB, 3.4 GB."""
    for unit, least in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= least:
            return f"{count / least:.1f} {unit}"
    return f"{count} B"


def json_text(value: Any, indent: int | None = None) -> str:
    """`value` as JSON that a terminal may show: its control characters are escaped, see CONTROL."""
    text = json.dumps(value, ensure_ascii=False, indent=indent)
    return CONTROL.sub(
        lambda match: match[0] if match[0] == "\n" else f"\\u{ord(match[0]):04x}", text
    )


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


# --- text as it comes, and clips


def say(piece: str) -> None:
    # A terminal obeys control characters, which a model's tokens may hold.
    if sys.stdout.isatty():
        piece = "\n".join(map(printable, piece.split("\n")))
    sys.stdout.write(piece)
    sys.stdout.flush()


def tell(progress: str) -> None:
    print(printable(progress), file=sys.stderr, flush=True)  # it may name a file of anyone's


def speak_utf8() -> None:
    # A pipe or a file gets UTF-8 everywhere; Windows' own choice there cannot hold most languages.
    # Names of files that are no text go there as they are; a terminal shows what it lacks as \xfc.
    if not hasattr(sys.stdout, "reconfigure"):
        return
    if sys.stdout.isatty():
        sys.stdout.reconfigure(errors="backslashreplace")  # pyright: ignore
    else:
        sys.stdout.reconfigure(encoding="utf-8", errors="surrogateescape")  # pyright: ignore


@contextmanager
def audio_file(audio: str) -> Iterator[str]:
    """The path of the audio, there or refused before a model of gigabytes is loaded."""
    if audio != STDIN:
        if not os.path.exists(audio):
            raise MissingFile(f"there is no file {audio}; wanted an audio file")
        yield audio
        return
    import tempfile

    from alm.audio.reader import MOST_BYTES

    with tempfile.TemporaryDirectory(prefix="alm-") as folder:
        path = Path(folder) / "stdin"
        with path.open("wb") as file:
            while block := sys.stdin.buffer.read(2**20):
                file.write(block)
                if file.tell() > 2 * MOST_BYTES:  # float64 takes twice
                    raise BadAudio(f"stdin holds more than {2 * MOST_BYTES // 2**20} MiB; cut it")
        yield str(path)


def check_out(*files: Path | None) -> None:
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


def write_out(path: Path, text: str) -> None:
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
        write_out(out, text + "\n")
    print(text) if as_json else table()
