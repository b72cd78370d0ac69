"""Products of models and dialects or targets, of which a run of the suite takes a part.

A trace takes five to ten seconds, so each change is tested with one dialect a model and each
dialect with every kind of model. ALM_LONG_TESTS=1 takes all of them.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TypeVar

A = TypeVar("A")
B = TypeVar("B")

LONG = bool(os.environ.get("ALM_LONG_TESTS"))


def pairs(names: Sequence[A], others: Sequence[B], start: int = 0) -> list[tuple[A, B]]:
    """Each name with one of the others, in turn, or with all of them."""
    if LONG:
        return [(name, other) for name in names for other in others]
    return [(name, others[(start + i) % len(others)]) for i, name in enumerate(names)]


def some(every: Sequence[A], *few: A) -> list[A]:
    """These few of them, or all."""
    assert set(few) <= set(every), few
    return list(every) if LONG else list(few)
