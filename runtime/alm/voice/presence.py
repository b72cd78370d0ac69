"""Is there speech in a clip at all? Only what cannot be speech is told apart from it.

Speech moves: in every 3 s of it some band of the voice rises by far more than 5 dB over its floor
and stays there for a tenth of a second. Silence, hiss, hum, a fan or a steady tone do not, whatever
their loudness: a band of white noise strays 4 dB from its floor, and a fan whose loudness swings by
a tenth 5 dB. Speech at 5 dB below such noise moves a band by 4.7 dB in the worst case that was
measured and by 9 dB in the middle (bench/results/gating.md). Music, rain, knocking and whatever
else comes and goes is taken for speech.
"""

from __future__ import annotations

import numpy as np

from alm.voice.levels import decibels, spectra

FRAME, HOP = 0.03, 0.015  # seconds
SPAN, STEP = 3.0, 1.0  # seconds looked at together, and to the next
DEAD = -85.0  # dB of full scale in the voice's band: no microphone, only rounding
MOVES = 5.2  # dB over the floor of a band
SUSTAINED = 5  # frames over which the median is taken: a click is shorter
LEAST = 6  # frames that move, or that are not dead: a tenth of a second
STEADY = 60  # frames that are needed to say that a sound is steady: 0.9 s
FLOOR = 20  # percent of the frames are below a band's floor
LEAKAGE = 1e-5  # of the loudest band: what is weaker is its window's leakage
EDGES = (150, 300, 450, 600, 800, 1000, 1250, 1500, 1800, 2150, 2600, 3200, 4000)  # Hz
WIDE = ((0, 3), (3, 7), (7, 12))  # bands taken together: steadier, and so more certain in noise


def has_speech(pcm: np.ndarray, rate: int) -> bool:
    """Whether float32 [samples] at `rate` Hz may hold speech; False is certain, True is not.

    What lasts less than 0.9 s, dead silence around it aside, is taken for speech, unless it is
    a click of less than a tenth of a second in such silence.
    """
    frame, hop = round(FRAME * rate), round(HOP * rate)
    if len(pcm) < frame + (LEAST - 1) * hop:
        return bool(np.abs(pcm).max(initial=0.0) > 10 ** (DEAD / 20))
    span, step = round(SPAN / HOP) * hop, round(STEP * rate)
    last = max(0, len(pcm) - span)
    starts = [*range(0, last, step), last]
    return any(_moves(_bands(pcm[at : at + span], frame, hop, rate)) for at in starts)


def _bands(pcm: np.ndarray, frame: int, hop: int, rate: int) -> np.ndarray:
    """Power [frames, bands] of the voice's bands that there are at this rate."""
    padded = np.pad(pcm, (0, max(0, frame - len(pcm))))
    frames = np.lib.stride_tricks.sliding_window_view(padded, frame)[::hop]
    power, hertz = spectra(frames, rate)
    of = np.searchsorted(EDGES, hertz, side="right") - 1
    there = [
        power[:, of == band].sum(axis=1) for band in range(len(EDGES) - 1) if (of == band).any()
    ]
    return np.stack(there, axis=1) if there else np.zeros((len(frames), 1))


def _moves(bands: np.ndarray) -> bool:
    alive = decibels(bands.sum(axis=1)) > DEAD
    if alive.sum() < LEAST or not _median(alive[:, None].astype(float)).any():
        return False
    bands = bands[alive]
    if len(bands) < STEADY:
        return True
    bands = bands + LEAKAGE * np.median(bands, axis=0).max()
    narrow = _rise(bands)
    if narrow.shape[1] > 1:  # in two bands beside each other at once
        narrow = np.minimum(narrow[:, 1:], narrow[:, :-1])
    wide = _rise(np.stack([bands[:, low:high].sum(axis=1) for low, high in WIDE], axis=1))
    return any(int((rise.max(axis=1) > MOVES).sum()) >= LEAST for rise in (narrow, wide))


def _rise(bands: np.ndarray) -> np.ndarray:
    """By how many dB each band is over its floor [frames, bands], over SUSTAINED frames."""
    levels = _median(decibels(bands))
    return levels - np.percentile(levels, FLOOR, axis=0)


def _median(values: np.ndarray) -> np.ndarray:
    """Medians [frames - SUSTAINED + 1, bands] of neighbouring frames."""
    if len(values) < SUSTAINED:
        return values
    return np.median(np.lib.stride_tricks.sliding_window_view(values, SUSTAINED, axis=0), axis=-1)
