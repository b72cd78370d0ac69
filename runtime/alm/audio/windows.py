"""Where a long clip is cut into windows."""

from __future__ import annotations

import numpy as np

from alm.errors import BadOption


def windows(
    samples: int, most: int, pcm: np.ndarray, slack: int, quiet: int = 320, least: int = 0
) -> list[slice]:
    """Cut `samples` of `pcm` [samples] into the fewest windows of at most `most` samples each.

    Every cut lies in the middle of the quietest `quiet` samples (20 ms at 16 kHz), looked for in
    the last `slack` samples before the latest cut that is possible, and only as far back as the
    number of windows allows: 60 s in windows of 30 s is cut at 30 s. The last window has at least
    `least` samples where that number allows it. The slices follow each other and cover everything;
    no samples give no windows.
    """
    if most < 1 or slack < 0 or quiet < 1 or samples != len(pcm):
        raise BadOption(
            f"windows wants most and quiet of 1 or more, slack of 0 or more, and the {samples} "
            f"samples; got {most=}, {quiet=}, {slack=}, {len(pcm)} samples"
        )
    cuts, count = [0], -(-samples // most)
    for left in range(count - 1, 0, -1):  # windows after this cut
        latest = cuts[-1] + most
        earliest = max(latest - slack, samples - left * most, cuts[-1] + 1)
        if left == 1:
            latest = max(earliest, min(latest, samples - least))
        cuts.append(_quietest(pcm, earliest, latest, quiet))
    return [slice(a, b) for a, b in zip(cuts, [*cuts[1:], samples], strict=True) if b > a]


def _quietest(pcm: np.ndarray, earliest: int, latest: int, quiet: int) -> int:
    start = max(0, earliest - quiet // 2)
    near = pcm[start : latest + quiet].astype(np.float64)
    energy = np.concatenate([[0.0], np.cumsum(near * near)])
    cuts = np.arange(earliest, latest + 1)
    low = np.maximum(cuts - quiet // 2, 0) - start
    high = np.minimum(low + quiet, len(near))
    # Of equals the last: fuller windows.
    return int(cuts[::-1][np.argmin((energy[high] - energy[low])[::-1])])
