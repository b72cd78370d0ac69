"""Work that may take its process with it, done in a process of its own.

Foreign code that crashes, or that the system ends for want of memory, ends the child; the parent
says so in a sentence. What the child took goes back to the system with it.
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


def apart(work: Callable[..., Any], *words: Any, say: Say, subject: str) -> Any:
    """What `work(*words, say)` returns, run in a new process.

    Args:
        work: a function that can be imported; what it returns must be plain data for JSON.
        words: what can be pickled.
        say: told in this process what the child says.
        subject: what is being done, for the sentence of a crash.

    Raises:
        AlmError: of the kind and with the words that `work` raised.
        BadArtifacts: it raised something else, crashed, or was ended from outside.
    """
    with tempfile.TemporaryFile() as left, _child(left) as child:
        assert child.stdin is not None and child.stdout is not None
        with contextlib.suppress(BrokenPipeError):  # it ended already: how is told below
            child.stdin.write(pickle.dumps((work, words)))
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
    path = json.dumps([os.path.abspath(each) for each in sys.path])
    words = [sys.executable, "-c", CHILD, path]
    pipe = subprocess.PIPE
    with subprocess.Popen(words, stdin=pipe, stdout=pipe, stderr=left) as child:
        try:
            yield child
        finally:
            child.kill()


def _message(line: bytes) -> tuple[str, Any]:
    """What the child said; a line that was cut off by its end says nothing."""
    try:
        kind, value = json.loads(line)
    except ValueError:
        return "", None
    return kind, value


def _error(said: tuple[str, str, str], subject: str) -> AlmError:
    """The child's error as one of ours; its traceback is the cause, for --debug."""
    kind, message, trace = said
    own = getattr(errors, kind, None)
    if isinstance(own, type) and issubclass(own, AlmError):
        error = own(message)
    else:
        error = BadArtifacts(f"{subject} failed: {' '.join(f'{kind}: {message}'.split())}")
    error.__cause__ = RuntimeError(trace)
    return error


def _ended(status: int, left: IO[bytes], subject: str) -> str:
    """A sentence about a child that ended without a word."""
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
    """The child: reads the work, does it, and says how that went, a line of JSON for each word."""
    with os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8") as out:
        # What foreign code prints must not get between the lines.
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
        _volunteer()

        def tell(kind: str, value: Any) -> None:
            out.write(json.dumps([kind, value]) + "\n")
            out.flush()

        work, words = pickle.load(sys.stdin.buffer)
        try:
            tell("done", work(*words, lambda progress: tell("say", progress)))
        except Exception as error:
            tell("failed", [type(error).__name__, str(error), traceback.format_exc()])


def _volunteer() -> None:
    """Where memory runs out, Linux shall end this process and none that others need."""
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write("1000")
