"""Calls into tokenizers, which is Rust: its panics become our errors, and print nothing.

A panic is a `pyo3_runtime.PanicException`, a BaseException whose class cannot be imported, and
before it is raised Rust's hook writes to file descriptor 2, past `sys.stderr`.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator, Sequence
from threading import Lock
from typing import Any

from tokenizers import Tokenizer

from alm.errors import BadArtifacts, BadPrompt
from alm.parsing import is_panic, printable

STDERR = 2
# All kinds of characters that normalizers and pre-tokenizers treat apart.
PROBE = "USER: Aa 1\n\u00e9\u7ec3\U0001f642<s>"


class Guarded:
    """A Tokenizer whose encoding and decoding raise BadArtifacts where Rust fails or panics.

    A `tokenizers.Tokenizer` cannot be subclassed; what is not here is passed on to it.
    """

    def __init__(self, tokenizer: Tokenizer, name: str) -> None:
        self._tokenizer, self._name = tokenizer, name
        # A file may ask for padding to any length, which takes memory, and transformers too pads
        # and cuts only when it is asked to.
        with calm(f"{name} cannot be used"):
            tokenizer.no_padding()
            tokenizer.no_truncation()
        self.decode(self.encode(PROBE, add_special_tokens=False).ids)

    def encode(self, text: str, **options: Any) -> Any:
        """See `Tokenizer.encode`; BadPrompt where the text is none."""
        try:
            text.encode()
        except UnicodeEncodeError:
            raise BadPrompt("the text holds bytes that are not UTF-8") from None
        with calm(f"{self._name} cannot encode this text"):
            return self._tokenizer.encode(text, **options)

    def decode(self, ids: Sequence[int], skip_special_tokens: bool = True) -> str:
        """See `Tokenizer.decode`."""
        with calm(f"{self._name} cannot decode these tokens"):
            return self._tokenizer.decode(ids, skip_special_tokens=skip_special_tokens)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tokenizer, name)


@contextlib.contextmanager
def calm(subject: str) -> Iterator[None]:
    """In this block an error or a panic of Rust is one BadArtifacts, and prints nothing."""
    _hush.begin()
    panicked = False
    try:
        yield
    except Exception as error:  # tokenizers raises plain Exception
        raise BadArtifacts(f"{subject}: {printable(error, 300)}") from error
    except BaseException as error:
        panicked = is_panic(error)
        if not panicked:
            raise
        raise BadArtifacts(
            f"{subject}: its parts do not fit together ({printable(error, 300)})"
        ) from None
    finally:
        _hush.end(panicked)


class _Hush:
    """Descriptor 2 leads to a file of ours while any thread is in Rust.

    What others wrote to it meanwhile is passed on, unless there was a panic.
    """

    def __init__(self) -> None:
        self._lock, self._inside, self._panicked = Lock(), 0, False
        self._sink = self._saved = -1

    def begin(self) -> None:
        with self._lock:
            self._inside += 1
            if self._inside == 1:
                self._turn()

    def end(self, panicked: bool) -> None:
        with self._lock:
            self._inside -= 1
            self._panicked |= panicked
            if self._inside == 0:
                self._turn_back()

    def _turn(self) -> None:
        with contextlib.suppress(OSError):  # there is no stderr, or no room for a file
            if self._sink < 0:
                with tempfile.TemporaryFile() as file:
                    self._sink = os.dup(file.fileno())
            self._saved = os.dup(STDERR)
            os.dup2(self._sink, STDERR)

    def _turn_back(self) -> None:
        panicked, self._panicked = self._panicked, False
        if self._saved < 0:
            return
        os.dup2(self._saved, STDERR)
        os.close(self._saved)
        self._saved = -1
        if size := os.fstat(self._sink).st_size:
            os.lseek(self._sink, 0, os.SEEK_SET)
            written = os.read(self._sink, size)
            os.ftruncate(self._sink, 0)
            os.lseek(self._sink, 0, os.SEEK_SET)
            if not panicked:
                with contextlib.suppress(OSError):
                    os.write(STDERR, written)


_hush = _Hush()
