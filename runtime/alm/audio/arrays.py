"""Arrays of sound: any integers or floats [samples] or [samples, channels] as float32 mono."""

from __future__ import annotations

from typing import Any

import numpy as np

from alm.audio.bounds import BLOCK, Bounds
from alm.audio.levels import Levels
from alm.errors import BadAudio

MOST_CHANNELS = 64  # of an array: more is [channels, samples], turned the wrong way


def read(source: Any, channel: str, bounds: Bounds) -> tuple[np.ndarray, int, Levels]:
    array, rate = source if isinstance(source, tuple) and len(source) == 2 else (source, None)
    rate = bounds.rate if rate is None else rate
    if not isinstance(array, np.ndarray) or not is_whole(rate):
        got = f"({type(array).__name__}, {type(rate).__name__})"
        got = got if isinstance(source, tuple) else type(source).__name__
        raise BadAudio(f"wanted a path, bytes, an array, or (array, rate in Hz); got {got}")
    if array.dtype.kind not in "fiu" or array.ndim not in (1, 2):
        raise BadAudio(
            "the array is wanted as floats or integers [samples] or [samples, channels]; got "
            f"{array.dtype} {list(array.shape)}"
        )
    sound = array[:, None] if array.ndim == 1 else array
    frames, channels = sound.shape
    if frames and not 1 <= channels <= MOST_CHANNELS:
        raise BadAudio(
            f"the array is {list(array.shape)}, so {channels} channels; wanted [samples, channels] "
            f"with 1 to {MOST_CHANNELS}: transpose it"
        )
    bounds.check("the array", frames, channels, int(rate))
    pcm, levels = np.empty(frames, np.float32), Levels(channels)
    for start in range(0, frames, BLOCK):
        block = to_float(sound[start : start + BLOCK])
        levels.add("the array", block, start, int(rate))
        pcm[start : start + BLOCK] = mono(block, channel)
    return pcm, int(rate), levels


def to_float(block: np.ndarray) -> np.ndarray:
    if block.dtype.kind == "f":
        with np.errstate(over="ignore"):  # float64 beyond float32 is infinite, and then refused
            return block.astype(np.float32)
    scale = 2.0 ** (8 * block.dtype.itemsize - 1)
    middle = scale if block.dtype.kind == "u" else 0.0
    return ((block.astype(np.float64) - middle) / scale).astype(np.float32)


def mono(block: np.ndarray, channel: str) -> np.ndarray:
    # In float64, since the sum of loud channels may not fit float32 though the mean does.
    return block[:, 0] if channel == "first" else block.mean(axis=1, dtype=np.float64)


def is_whole(value: object) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def is_number(value: object) -> bool:
    return isinstance(value, int | float | np.number) and not isinstance(value, bool)
