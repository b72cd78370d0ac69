"""A call with room on the stack: llguidance follows references and rules by recursion."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

# A reference takes 2.7 kB, and of what is within the bounds of schemas and grammars 2000 may stand
# in each other. Threads have 8 MB with glibc and far less elsewhere; what is not used is not taken.
STACK = 64 * 2**20

T = TypeVar("T")
_one = threading.Lock()


def roomy(call: Callable[[], T]) -> T:
    """What `call` gives or raises, in a thread of its own with a stack of 64 MB."""
    given: list[T] = []
    raised: list[BaseException] = []

    def run() -> None:
        try:
            given.append(call())
        except BaseException as error:  # a panic of Rust is no Exception
            raised.append(error)

    thread = threading.Thread(target=run)
    with _one:
        before = threading.stack_size()
        with suppress(ValueError):  # a system with stacks of one size
            threading.stack_size(STACK)
        try:
            thread.start()
        finally:
            threading.stack_size(before)
    thread.join()
    if raised:
        raise raised[0]
    return given[0]
