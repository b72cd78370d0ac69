"""Whether one input was answered as promised: one of our errors, one sentence, nothing else."""

from __future__ import annotations

import contextlib
import io
import os
import re
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from typing import Any

from alm.cli import exit_status
from alm.errors import AlmError
from alm.parsing import printable

LONGEST = 1_100  # characters of a sentence, with "error: " and a path
CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
STDOUT = 1


def finding(run: Callable[[], Any]) -> str:
    """What is wrong with how `run` ended; "" when nothing is.

    It returns, or raises an AlmError; what it returns may be the complaint of `told`.
    """
    before = os.lseek(STDOUT, 0, os.SEEK_END)
    wrong = ""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            wrong = run() or ""
    except AlmError as error:
        # Whoever prints it takes control characters out; a line break would make two sentences.
        wrong = _sentence(printable(error)) or ("two lines" if "\n" in str(error).strip() else "")
    except BaseException as error:
        wrong = f"{type(error).__name__}: {error!s:.300}\n{_where(error)}"
    if os.lseek(STDOUT, 0, os.SEEK_END) != before:
        return f"printed to descriptor 1; {wrong}"
    return wrong


def told(app: Any, words: list[str], prints: bool = False) -> str:
    """What is wrong with how a command ended; `prints`: it may print and fail nevertheless."""
    with _caught() as (out, err):
        status = exit_status.run(app, words)
    said, sentences = out(), err()
    if status not in (0, 1, 2):
        return f"status {status}; {sentences:.300}"
    if status and said and not prints:
        return f"failed with {status} and printed {said[:100]!r}; {sentences:.300}"
    if status == 1 and not sentences and not said:
        return "failed without a word"
    for line in sentences.splitlines():
        if wrong := _sentence(line):
            return wrong
    # What a model says goes to a pipe as it is; all else that is printed is ours.
    if (prints or "--list-tasks" in words) and CONTROL.search(said):
        return f"control characters on stdout: {CONTROL.search(said)}"
    return ""


def _sentence(line: str) -> str:
    if line.startswith("error: unexpected"):
        return line
    if "out of memory" in line:
        return line
    if len(line) > LONGEST:
        return f"a sentence of {len(line)} characters: {line[:200]}"
    return f"control characters in {line[:200]!r}" if CONTROL.search(line) else ""


@contextlib.contextmanager
def _caught() -> Iterator[tuple[Callable[[], str], Callable[[], str]]]:
    """stdout and stderr as pipes have them: UTF-8, strict on one and not on the other."""
    streams = [io.BytesIO(), io.BytesIO()]
    errors = ("strict", "backslashreplace")
    texts = [io.TextIOWrapper(s, "utf-8", e) for s, e in zip(streams, errors, strict=True)]

    def reader(number: int) -> Callable[[], str]:
        def read() -> str:
            texts[number].flush()
            return streams[number].getvalue().decode()

        return read

    with contextlib.redirect_stdout(texts[0]), contextlib.redirect_stderr(texts[1]):
        yield reader(0), reader(1)


def _where(error: BaseException) -> str:
    """The innermost frames, for the report and to tell findings apart."""
    frames = traceback.extract_tb(error.__traceback__)[-3:]
    return " < ".join(f"{os.path.basename(f.filename)}:{f.lineno} {f.name}" for f in frames[::-1])


def main_stdout_to_file(path: str) -> None:
    """Descriptor 1 leads to a file: what foreign code prints there is seen."""
    sys.stdout.flush()
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND)
    os.dup2(handle, STDOUT)
