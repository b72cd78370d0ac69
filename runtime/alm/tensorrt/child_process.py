"""Work that may take its process with it, done in a process of its own.

Foreign code that crashes, or that the system ends for want of memory, ends the child; the parent
reports it in a sentence. What the child took goes back to the system with it.
"""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from typing import IO, Any

from alm import errors
from alm.errors import AlmError, BadArtifacts

Say = Callable[[str], None]

# Its modules are found where the parent finds them, which need not be an installed package.
CHILD = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from alm.tensorrt.child_process import main; main()"
)
MOST_WORDS = 300  # letters of what a crash left on stderr
KILLED = -9  # SIGKILL: nobody but a person or the system's want of memory sends it


def apart(work: Callable[..., Any], *arguments: Any, say: Say, subject: str) -> Any:
    """What `work(*arguments, say)` returns, run in a new process.

    Args:
        work: a function that can be imported; what it returns must be plain data for JSON.
        arguments: what can be pickled.
        say: called in this process with the child's progress.
        subject: what is being done, for the sentence of a crash.

    Raises:
        AlmError: of the kind and with the message that `work` raised.
        BadArtifacts: it raised something else, crashed, or was ended from outside.
    """
    with tempfile.TemporaryFile() as left, _child(left) as child:
        assert child.stdin is not None and child.stdout is not None
        with contextlib.suppress(BrokenPipeError):  # it ended already: how is reported below
            child.stdin.write(pickle.dumps((work, arguments)))
            child.stdin.close()
        for line in child.stdout:
            kind, value = _message(line)
            if kind == "say":
                say(value)
            elif kind == "done":
                return value
            elif kind == "failed":
                raise _error(value, subject)
        raise BadArtifacts(_ended(child.wait(), left, subject))


@contextlib.contextmanager
def _child(left: IO[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    """A child whose stderr goes to `left`; it does not outlive the block."""
    path = json.dumps([os.path.abspath(folder) for folder in sys.path])
    command = [sys.executable, "-c", CHILD, path]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=left) as child:
        try:
            yield child
        finally:
            child.kill()


def _message(line: bytes) -> tuple[str, Any]:
    """A message of the child: its kind and value; kind "" for a line that its end cut off."""
    try:
        kind, value = json.loads(line)
    except ValueError:
        return "", None
    return kind, value


def _error(failure: tuple[str, str, str], subject: str) -> AlmError:
    """The child's error as one of ours; its traceback is the cause, for --debug."""
    kind, message, trace = failure
    known = getattr(errors, kind, None)
    if isinstance(known, type) and issubclass(known, AlmError):
        error = known(message)
    else:
        error = BadArtifacts(f"{subject} failed: {' '.join(f'{kind}: {message}'.split())}")
    error.__cause__ = RuntimeError(trace)
    return error


def _ended(status: int, left: IO[bytes], subject: str) -> str:
    """A sentence about a child that ended without a message."""
    if status == KILLED:
        return f"{subject} was ended from outside, as the system does when memory runs out"
    left.seek(0)
    lines = left.read().decode("utf-8", "replace").strip().splitlines()
    words = f": {lines[-1][:MOST_WORDS]}" if lines else ""
    try:
        how = signal.Signals(-status).name
    except ValueError:
        how = f"exit status {status}"
    return f"{subject} crashed ({how}){words}"


def main() -> None:
    """The child: reads the work, does it, and reports how that went, a line of JSON a message."""
    with os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8") as out:
        # What foreign code prints must not get between the lines.
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
        _volunteer()

        def send(kind: str, value: Any) -> None:
            out.write(json.dumps([kind, value]) + "\n")
            out.flush()

        work, arguments = pickle.load(sys.stdin.buffer)
        try:
            send("done", work(*arguments, lambda progress: send("say", progress)))
        except Exception as error:
            send("failed", [type(error).__name__, str(error), traceback.format_exc()])


def _volunteer() -> None:
    """Where memory runs out, Linux shall end this process and none that others need."""
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write("1000")
