"""The green list of a watermark (Kirchenbauer et al. 2023) as transformers draws it with torch."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np


def green(last: int, vocab: int, config: Mapping[str, float]) -> np.ndarray:
    """The tokens that the watermark favours after the token `last`.

    torch's generator is a Mersenne Twister that keeps 32 bits of a seed, and its `randperm` a
    Fisher-Yates shuffle, of which only the part that is used is made here.
    """
    count = int(vocab * config["greenlist_ratio"])
    seed = int(config["hashing_key"]) * last % (2**64 - 1) % 2**32
    bits = np.random.RandomState(seed).randint(0, 2**32, size=count, dtype=np.uint32)
    swaps = (bits % (vocab - np.arange(count))).tolist()
    order = list(range(vocab))
    for i, swap in enumerate(swaps):
        order[i], order[i + swap] = order[i + swap], order[i]
    return np.array(order[:count], np.int64)
