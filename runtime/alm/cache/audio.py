"""Embeddings of clips are remembered: a second question about a clip computes no encoder."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Protocol

import numpy as np

from alm.adapters.adapter import NONE, Adapter
from alm.cache.memory import Arrays, Memory
from alm.text.units import NAME as UNITS
from alm.text.units import Units
from alm.timings import Stages

EMBEDS = "embeds"
MOST_ROWS = 8  # clips encoded, and prompts answered, at a time
MOST_BYTES = 64 * 2**20  # of embeddings remembered; 30 s of SALMONN's with 3072 columns are 1 MiB


class Forward(Protocol):
    """The parts before the decoder, as `generation.pipeline.Pipeline` is."""

    def forward(
        self,
        tensors: dict[str, np.ndarray],
        stages: Stages | None = None,
        worn: Mapping[str, Mapping[str, np.ndarray]] | None = None,
    ) -> dict[str, np.ndarray]: ...


class AudioEncoder:
    """The parts before the decoder, and their embeddings of the latest clips."""

    def __init__(
        self,
        pipeline: Forward,
        memory: Memory,
        window: int = 0,
        hear: Callable[[np.ndarray, Stages], np.ndarray] | None = None,
        units: Units | None = None,
    ) -> None:
        """`memory` keeps what the parts make of a clip.

        `window` is the samples of a window where the model takes all windows of a clip as one.
        `hear` makes a clip's embeddings of its samples, where the parts hear a clip in pieces.
        `units` makes tokens of what the parts give, where that is no embeddings.
        """
        self.pipeline, self.memory, self.window = pipeline, memory, window
        self.hear, self.units = hear, units

    def encode(
        self, clips: Sequence[np.ndarray], stages: Stages, adapter: Adapter = NONE
    ) -> tuple[list[np.ndarray], list[bool]]:
        """Embeddings float32 [n, hidden] of each clip [samples], and whether they were known.

        Of a model that hears tokens they are those, int64 [n], in the embeddings' place.
        Only clips that are new are computed, in few batches and each of them once. What was made
        with an adapter that changes an encoder is remembered apart.
        """
        if not self.memory:
            return self._compute(clips, stages, adapter), [False] * len(clips)
        start = time.perf_counter()
        keys = [key(pcm) + adapter.heard for pcm in clips]
        by_key = {k: _embeds(self.memory.get(k)) for k in keys}
        new = {k: pcm for k, pcm in zip(keys, clips, strict=True) if by_key[k] is None}
        stages.add("recall", start)
        if new:
            made = self._compute(list(new.values()), stages, adapter)
            for k, embeds in zip(new, made, strict=True):
                self.memory.put(k, {EMBEDS: embeds})
                by_key[k] = embeds
        return [by_key[k] for k in keys], [k not in new for k in keys]  # pyright: ignore

    def _compute(
        self, clips: Sequence[np.ndarray], stages: Stages, adapter: Adapter
    ) -> list[np.ndarray]:
        if self.hear:
            return [self.hear(pcm, stages) for pcm in clips]
        by_place: dict[int, np.ndarray] = {}
        for places in self._batches(clips):
            tensors = self.pipeline.forward(
                batch([clips[i] for i in places]), stages, adapter.arrays
            )
            if self.units:
                made = map(self.units.ids, tensors[UNITS])
                by_place |= dict(zip(places, made, strict=True))
                continue
            embeds = tensors["audio_embeds"]
            lengths = tensors.get("audio_embeds_lengths", [embeds.shape[1]] * len(embeds))
            by_place |= {
                i: row[: int(n)] for i, row, n in zip(places, embeds, lengths, strict=True)
            }
        return [by_place[i] for i in range(len(clips))]

    def _batches(self, clips: Sequence[np.ndarray]) -> Iterator[list[int]]:
        """Which clips go together: few, of as many windows each, so that none is for padding."""
        sizes = [-(-len(pcm) // self.window) if self.window else 0 for pcm in clips]
        for size in sorted(set(sizes)):
            alike = [i for i, other in enumerate(sizes) if other == size]
            for at in range(0, len(alike), MOST_ROWS):
                yield alike[at : at + MOST_ROWS]


def _embeds(known: Arrays | None) -> np.ndarray | None:
    return known.get(EMBEDS) if known else None


def batch(windows: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
    """Feeds of windows [samples], the shorter ones padded with zeros on the right."""
    lengths = np.array([len(pcm) for pcm in windows], np.int64)
    rows = np.zeros((len(windows), int(lengths.max())), np.float32)
    for row, pcm in zip(rows, windows, strict=True):
        row[: len(pcm)] = pcm
    return {"pcm": rows, "pcm_lengths": lengths}


def key(pcm: np.ndarray) -> bytes:
    """The key of a window's float32 samples: their sha256, and how many there are."""
    sha256 = hashlib.sha256(np.ascontiguousarray(pcm, np.float32).data)
    return sha256.digest() + len(pcm).to_bytes(8, "little")
