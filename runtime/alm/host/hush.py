"""Libraries that write to stderr past Python, kept from it for a while."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_stderr = threading.Lock()


@contextmanager
def hush() -> Iterator[None]:
    """Nothing on stderr meanwhile: libmpg123 inside libsndfile writes there, past Python."""
    with _stderr:  # one at a time, or the second would restore the first one's silence
        try:
            kept = os.dup(2)
        except OSError:  # there is no stderr
            yield
            return
        null = os.open(os.devnull, os.O_WRONLY)
        try:
            os.dup2(null, 2)
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            os.close(null)
