"""How a command ends: one sentence on stderr and the right exit status, a traceback for --debug."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Sequence

import typer

from alm.errors import LONGEST, AlmError
from alm.parsing import is_panic, printable

# typer brings click under one name or another, depending on its version: take it from typer.
ClickError: type[Exception] = typer.BadParameter.__mro__[2]
UNWRITABLE = (errno.ENOSPC, errno.EIO, errno.EFBIG, errno.EBADF)  # a full disk behind stdout
WRONG_WORDS, FAILED, INTERRUPTED = 2, 1, 130


class Told(int):
    """An exit status that a command has said the sentence of itself."""


def run(app: typer.Typer, words: Sequence[str] | None = None, name: str | None = None) -> int:
    """Run a typer app and return its exit status: 0, 2 for a wrong command line, 1 for the rest.

    `name` is what a shell calls it, for its help and its completion.
    """
    words = list(sys.argv[1:] if words is None else words)
    _open_closed()
    command = typer.main.get_command(app)
    try:
        status = command.main(words, prog_name=name, standalone_mode=False)
        if status == INTERRUPTED and not isinstance(
            status, Told
        ):  # what typer makes of Ctrl-C, without a word
            raise KeyboardInterrupt
    except typer.Exit as stop:
        return stop.exit_code
    except ClickError as error:
        return _say(error.format_message(), WRONG_WORDS)  # pyright: ignore
    except AlmError as error:
        if "--debug" in words:
            raise
        return _say(str(error), WRONG_WORDS if error.usage else FAILED)
    except (KeyboardInterrupt, typer.Abort):
        return _say("interrupted", INTERRUPTED)
    except BrokenPipeError:
        sys.stderr.close()  # the reader went away; Python would complain on exit
        return FAILED
    except MemoryError:
        return _say("out of memory", FAILED)
    except BaseException as error:
        if "--debug" in words or not (isinstance(error, Exception) or is_panic(error)):
            raise
        if isinstance(error, OSError) and error.errno in UNWRITABLE and not error.filename:
            return _say(f"stdout cannot be written: {error.strerror}", FAILED)
        what = f"{type(error).__name__}: {error}".split("\n")[0]
        return _say(f"unexpected {what}; run again with --debug for the traceback", FAILED)
    return status if isinstance(status, int) else 0


def _open_closed() -> None:
    """A program that was started without stdout or stderr (>&-) has none: it gets the system's bin.

    Otherwise the first file that is opened would take the place, and what is printed go into it.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115


def _say(sentence: str, status: int) -> int:
    # What is quoted may come from a file of anyone's: no control characters, no end.
    print(f"error: {printable(' '.join(sentence.split()), LONGEST)}", file=sys.stderr)
    return status
