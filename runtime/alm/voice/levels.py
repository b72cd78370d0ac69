"""How loud frames are in the band of the voice."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

# Hz: above the hum of the mains and its first harmonics, below where only hiss is.
BAND = (150.0, 4000.0)
NOTHING = -120.0  # dB of full scale


def spectra(frames: np.ndarray, rate: int) -> tuple[np.ndarray, np.ndarray]:
    """Power of frames [n, samples] by frequency [n, bins], mean square 1 at full scale; its Hz."""
    window, norm = _window(frames.shape[1])
    power = np.abs(np.fft.rfft(frames * window, axis=1)) ** 2
    return power * norm, np.fft.rfftfreq(frames.shape[1], 1 / rate)


def levels(frames: np.ndarray, rate: int) -> np.ndarray:
    """Of frames float32 [n, samples] the levels float64 [n] in the voice's band, dB of full scale.

    Each is computed from its own frame alone: any number at a time gives the same.
    """
    if not len(frames):
        return np.zeros(0)
    power, hertz = spectra(frames, rate)
    band = (hertz >= BAND[0]) & (hertz <= BAND[1])
    return decibels(np.ascontiguousarray(power[:, band]).sum(axis=1))


def decibels(power: np.ndarray) -> np.ndarray:
    """10 log10 of power, nothing below NOTHING."""
    return 10 * np.log10(np.maximum(power, 10 ** (NOTHING / 10)))


@lru_cache(maxsize=16)
def _window(samples: int) -> tuple[np.ndarray, float]:
    """Hann's, and what makes the power of its spectrum a mean square (one-sided)."""
    window = np.hanning(samples + 1)[:-1]
    return window, float(2 / (samples * np.square(window).sum()))
