"""The beginning of a prompt, before its first clip, is computed once: most prompts have the same.

Keys and values of a position depend on nothing behind it, so those of a beginning are the same in
every prompt that has it, and are copied into the cache in its place.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from alm.cache.memory import Memory
from alm.facts import DimensionFacts
from alm.ports import Port

MOST_BYTES = 32 * 2**20  # remembered of them; 20 positions of a 1B's are 1.3 MB, of a 7B's 21 MB
LEAST = 4  # positions that are worth it


class Prefixes:
    """Keys and values of beginnings; threads may share it."""

    def __init__(
        self, memory: Memory, ports: Mapping[str, Port], dimensions: DimensionFacts
    ) -> None:
        """`ports` are the cache's, by the input's name."""
        self.memory, self.ports = memory, ports
        turns = (
            dimensions.rope_grows_past,
            dimensions.rope_switches_past,
            dimensions.rope_doubles_past,
        )
        # Longer prompts have rotary frequencies that change with their length.
        self.longest = min((past for past in turns if past is not None), default=None)

    def of(self, row: Sequence[np.ndarray], whole: int) -> tuple[int, ...]:
        """The ids that a row of `whole` positions begins with, if they can be told apart."""
        ids = row[0]
        last = len(row) == 1  # no clip: then all but what must give the logits
        if not self.memory or last or ids.ndim > 1 or len(ids) < LEAST:
            return ()
        if self.longest is not None and whole > self.longest:
            return ()
        return tuple(map(int, ids))

    def get(self, ids: tuple[int, ...], told: bytes = b"") -> dict[str, np.ndarray] | None:
        """The cache [1, ...] after these ids, by the input's name.

        `told`: of the adapter that changes the decoder, if any; see `Adapter.told`.
        """
        if not ids:
            return None
        found = self.memory.get(_key(ids, told))
        if not found or found.keys() != self.ports.keys():
            return None
        sizes = {"batch": 1, "past": len(ids), "capacity": len(ids)}
        wanted = {name: (port.dtype, port.shape(sizes)) for name, port in self.ports.items()}
        there = {name: (array.dtype.name, array.shape) for name, array in found.items()}
        return found if there == wanted else None

    def put(self, ids: tuple[int, ...], cache: Mapping[str, np.ndarray], told: bytes = b"") -> None:
        """Remember a cache [1, ...] of these ids."""
        self.memory.put(_key(ids, told), cache)


def _key(ids: tuple[int, ...], told: bytes) -> bytes:
    # Behind an adapter's mark the length is no multiple of 8, which that of ids alone is.
    return np.array(ids, np.int64).tobytes() + (b"lora" + told if told else b"")
