"""What was heard is remembered: a second question about a clip computes no encoder."""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict
from collections.abc import Sequence
from threading import Lock

import numpy as np

from alm.pipeline import Pipeline, Stages

MOST_BYTES = 64 * 2**20  # of embeddings remembered; 30 s of SALMONN's with 3072 columns are 1 MiB


class Memory:
    """Embeddings by key, the least recently used forgotten first; threads may share it."""

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self.most_bytes = most_bytes
        self.bytes = 0
        self._known: OrderedDict[bytes, np.ndarray] = OrderedDict()
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._known)

    def get(self, key: bytes) -> np.ndarray | None:
        """The embeddings of `key`, which are now the last to be forgotten."""
        with self._lock:
            if key in self._known:
                self._known.move_to_end(key)
            return self._known.get(key)

    def put(self, key: bytes, embeds: np.ndarray) -> None:
        """Remember embeddings, unless they alone are more than all that may be remembered."""
        if embeds.nbytes > self.most_bytes:
            return
        embeds = embeds.copy()  # a row would keep the whole batch alive
        with self._lock:
            old = self._known.pop(key, None)
            self.bytes += embeds.nbytes - (0 if old is None else old.nbytes)
            self._known[key] = embeds
            while self.bytes > self.most_bytes:
                self.bytes -= self._known.popitem(last=False)[1].nbytes


class Ear:
    """The parts before the decoder, and what they made of the windows heard last."""

    def __init__(self, pipeline: Pipeline, most_bytes: int = MOST_BYTES) -> None:
        """With `most_bytes` of 0 nothing is remembered."""
        self.pipeline, self.memory = pipeline, Memory(most_bytes)

    def hear(
        self, windows: Sequence[np.ndarray], stages: Stages
    ) -> tuple[list[np.ndarray], list[bool]]:
        """Embeddings float32 [n, hidden] of each window [samples], and whether they were known.

        Only windows that are new are computed, all of them in one batch and each of them once.
        """
        if not self.memory.most_bytes:
            return list(self._encode(windows, stages)), [False] * len(windows)
        start = time.perf_counter()
        keys = [key(pcm) for pcm in windows]
        found = {k: self.memory.get(k) for k in keys}
        new = {k: pcm for k, pcm in zip(keys, windows, strict=True) if found[k] is None}
        stages.add("recall", start)
        if new:
            for k, embeds in zip(new, self._encode(list(new.values()), stages), strict=True):
                self.memory.put(k, embeds)
                found[k] = embeds
        return [found[k] for k in keys], [k not in new for k in keys]  # pyright: ignore

    def _encode(self, windows: Sequence[np.ndarray], stages: Stages) -> np.ndarray:
        return self.pipeline.forward(batch(windows), stages)["audio_embeds"]


def batch(windows: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
    """Feeds of windows [samples], the shorter ones padded with zeros on the right."""
    lengths = np.array([len(pcm) for pcm in windows], np.int64)
    rows = np.zeros((len(windows), int(lengths.max())), np.float32)
    for row, pcm in zip(rows, windows, strict=True):
        row[: len(pcm)] = pcm
    return {"pcm": rows, "pcm_lengths": lengths}


def key(pcm: np.ndarray) -> bytes:
    """What tells windows of float32 samples apart: their sha256, and how many there are."""
    made = hashlib.sha256(np.ascontiguousarray(pcm, np.float32).data)
    return made.digest() + len(pcm).to_bytes(8, "little")
