"""A conversation's positions, kept where its KV cache is not the one of the whole asked anew."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


class History:
    """What is in the cache of a conversation, for models whose rotary frequencies change.

    Past a length that the manifest names, all keys of a call are turned by other frequencies: for
    good (`rope_switches_past`, longrope) or at each length anew (`rope_grows_past`, dynamic). Keys
    that were cached before are then not those of the model given the whole conversation, which is
    therefore computed again from its start.
    """

    def __init__(self, dimensions: Mapping[str, Any]) -> None:
        self.grows: int | None = dimensions.get("rope_grows_past")
        self.switches: int | None = dimensions.get("rope_switches_past")
        self.row: list[np.ndarray] = []  # ids [n] and embeddings [n, hidden] of what was said
        self._first = 0  # positions of the call that began the cache

    def restarts(self, held: int, whole: int) -> bool:
        """Whether a row of `whole` positions, `held` of them in the cache, must begin anew."""
        if not held:  # a turn that failed half way took the cache with it
            return bool(self.row)
        grown = self.grows is not None and whole > self.grows
        return grown or (self.switches is not None and self._first <= self.switches < whole)

    def add(self, held: int, whole: int, new: Sequence[np.ndarray], said: Sequence[int]) -> None:
        """Remember a turn: it began with `held` of its `whole` positions in the cache."""
        if self.grows is None and self.switches is None:
            return
        self._first = self._first if held else whole
        self.row += [*new, np.asarray(said, np.int64)]
