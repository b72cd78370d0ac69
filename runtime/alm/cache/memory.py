"""Arrays remembered by what they were made of, in memory and, where asked for, in a folder."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from threading import Lock

import numpy as np

from alm.cache.folder import Folder

Arrays = dict[str, np.ndarray]


class Memory:
    """Arrays by key, the least recently used forgotten first; threads may share it."""

    def __init__(self, kind: str, most_bytes: int, folder: Folder | None = None) -> None:
        """`kind` tells apart what several memories keep in one folder."""
        self.kind, self.most_bytes, self.folder = kind, most_bytes, folder
        self.bytes = 0
        self._known: OrderedDict[bytes, Arrays] = OrderedDict()
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._known)

    def __bool__(self) -> bool:
        """Whether anything is remembered at all."""
        return bool(self.most_bytes or self.folder)

    def get(self, key: bytes) -> Arrays | None:
        """The arrays of `key`, which are now the last to be forgotten."""
        with self._lock:
            if key in self._known:
                self._known.move_to_end(key)
                return self._known[key]
        found = self.folder.get(self.kind, key) if self.folder else None
        if found is not None:
            self._add(key, found)
        return found

    def put(self, key: bytes, arrays: Mapping[str, np.ndarray]) -> None:
        """Remember a copy of arrays, unless they alone are more than all that may be."""
        copies = {name: array.copy() for name, array in arrays.items()}  # else a batch stays alive
        self._add(key, copies)
        if self.folder:
            self.folder.put(self.kind, key, copies)

    def _add(self, key: bytes, arrays: Arrays) -> None:
        size = _bytes(arrays)
        if size > self.most_bytes:
            return
        with self._lock:
            self.bytes += size - _bytes(self._known.pop(key, {}))
            self._known[key] = arrays
            while self.bytes > self.most_bytes:
                self.bytes -= _bytes(self._known.popitem(last=False)[1])


def _bytes(arrays: Arrays) -> int:
    return sum(array.nbytes for array in arrays.values())
