"""Where a recording of speech is cut: in pauses, and with an overlap where nobody pauses."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

QUIET, EXACT = "quiet", "exact"  # ways to join: in pauses, or in as few windows as will hold it
PAUSE = 0.12  # seconds: longer than the closure of a plosive
QUIETER = 12.0  # dB that a pause is below the window's loud frames
LOUD = 90  # percent of the frames are below those
LAST, MOST_LAST = 1 / 3, 8.0  # the part of a window in which a pause is sought, and its seconds
OVERLAP, MOST_OVERLAP = 1 / 4, 2.0  # of windows without a pause
HOP = 0.01  # seconds between places that are looked at


class Place(NamedTuple):
    """A window: samples [start, stop), of which the window before has the first `overlap` too."""

    start: int
    stop: int
    overlap: int = 0


def places(pcm: np.ndarray, rate: int, most: int, least: int, overlaps: bool) -> list[Place]:
    """Windows of at most `most` samples that cover float32 [samples] at `rate` Hz, in order.

    Each ends in the quietest place of its last third, at most 8 s of it, if that is a pause. If it
    is none, the next window begins 2 s (a quarter of a window, if that is less) before its end;
    without `overlaps` the cut is in the quietest place all the same. The last window has at least
    `least` samples where that can be.
    """
    found, start, overlap = [], 0, 0
    energy = np.concatenate([[0.0], np.cumsum(np.square(pcm, dtype=np.float64))])
    while len(pcm) - start > most:
        place, is_pause = _quietest(energy, start, most, rate, least)
        if is_pause or not overlaps:
            found.append(Place(start, place, overlap))
            start, overlap = place, 0
        else:
            stop = start + most
            found.append(Place(start, stop, overlap))
            overlap = min(int(OVERLAP * most), int(MOST_OVERLAP * rate))
            start = stop - overlap
    return [*found, Place(start, len(pcm), overlap)]


def _quietest(energy: np.ndarray, start: int, most: int, rate: int, least: int) -> tuple[int, bool]:
    """The middle of the quietest PAUSE in a window's last part, and whether it is a pause.

    `energy` [samples + 1] is that of all samples before each.
    """
    pause, hop = max(2, int(PAUSE * rate)), max(1, int(HOP * rate))
    end = min(start + most, len(energy) - 1)
    begins = np.arange(start, max(start + 1, end - pause), hop)
    power = energy[np.minimum(begins + pause, end)] - energy[begins]
    last = min(int(LAST * most), int(MOST_LAST * rate))
    latest = min(end - pause, max(start + 1, len(energy) - 1 - least - pause // 2))
    there = (begins >= end - last) & (begins <= latest)
    if not there.any():
        there = begins >= begins[-1]
    low = power[there]
    at = len(low) - 1 - int(np.argmin(low[::-1]))  # of equals the last: fuller windows
    is_pause = low[at] <= np.percentile(power, LOUD) * 10 ** (-QUIETER / 10)
    return int(begins[there][at]) + pause // 2, bool(is_pause)
