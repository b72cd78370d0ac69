"""Memory that was freed goes back to the system."""

from __future__ import annotations

import ctypes
import gc
import sys
from functools import cache


def give_back() -> None:
    """Collect garbage and `trim`.

    What torch and transformers are made of, millions of objects, is looked at the first time only:
    it stays, and to look at it takes half a second.
    """
    gc.collect()
    _freeze()
    trim()


@cache
def _freeze() -> None:
    """Once: to ask gc how much is frozen already takes a tenth of a second each time."""
    gc.freeze()


def trim() -> None:
    """Hand free pages of the heap back: glibc keeps what was freed below a block that lives.

    Gigabytes, where a model of the size of Whisper-large is run layer by layer.
    """
    if sys.platform == "linux":
        trimmed = getattr(ctypes.CDLL(None), "malloc_trim", None)  # musl has none
        if trimmed is not None:
            trimmed(0)
