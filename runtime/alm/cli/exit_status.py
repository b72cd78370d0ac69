"""How a command ends: one sentence on stderr and the right exit status, a traceback for --debug."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import typer

from alm.errors import LONGEST, AlmError
from alm.parsing import is_panic, printable

# typer brings click under one name or another, depending on its version: take it from typer.
ClickError: type[Exception] = typer.BadParameter.__mro__[2]
WRONG_WORDS, FAILED, INTERRUPTED = 2, 1, 130


def run(app: typer.Typer, words: Sequence[str] | None = None, name: str | None = None) -> int:
    """Run a typer app and return its exit status: 0, 2 for a wrong command line, 1 for the rest.

    `name` is what a shell calls it, for its help and its completion.
    """
    words = list(sys.argv[1:] if words is None else words)
    command = typer.main.get_command(app)
    try:
        status = command.main(words, prog_name=name, standalone_mode=False)
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
        what = f"{type(error).__name__}: {error}".split("\n")[0]
        return _say(f"unexpected {what}; run again with --debug for the traceback", FAILED)
    return status if isinstance(status, int) else 0


def _say(sentence: str, status: int) -> int:
    # What is quoted may come from a file of anyone's: no control characters, no end.
    print(f"error: {printable(' '.join(sentence.split()), LONGEST)}", file=sys.stderr)
    return status
