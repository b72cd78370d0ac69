"""The sounds that the demo model can name, synthesised: each draw of chance is another instance."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

RATE = 16_000  # Hz
Chance = np.random.Generator


def make(name: str, seconds: float, chance: Chance) -> np.ndarray:
    """One instance of a sound, float32 with its peak at 1; `name` is a key of KINDS."""
    pcm = KINDS[name](int(seconds * RATE), chance)
    pcm = pcm / max(float(np.abs(pcm).max()), 1e-9)
    fade = min(int(0.02 * RATE), len(pcm) // 2)
    ramp = np.linspace(0, 1, fade)
    pcm[:fade] *= ramp
    pcm[-fade:] *= ramp[::-1]
    return pcm.astype(np.float32)


def _phase(hertz: np.ndarray) -> np.ndarray:
    return 2 * np.pi * np.cumsum(hertz) / RATE


def _voiced(phase: np.ndarray, chance: Chance) -> np.ndarray:
    """A sine with a few weak harmonics."""
    weights = chance.uniform(0, 0.3, 3) / np.arange(1, 4)
    return np.sin(phase) + sum(w * np.sin((i + 2) * phase) for i, w in enumerate(weights))


def tone(samples: int, chance: Chance) -> np.ndarray:
    """One steady pitch."""
    hertz = 200 * 2 ** chance.uniform(0, 3.6)
    return _voiced(_phase(np.full(samples, hertz)), chance)


def siren(samples: int, chance: Chance) -> np.ndarray:
    """Two pitches in turn."""
    low, period = chance.uniform(350, 900), chance.uniform(0.35, 0.8)
    high = low * chance.uniform(1.25, 1.7)
    turn = (np.arange(samples) / RATE / period + chance.uniform()) % 1 < 0.5
    return _voiced(_phase(np.where(turn, low, high)), chance)


def chirp(samples: int, chance: Chance) -> np.ndarray:
    """A pitch that rises, again and again."""
    period, low = chance.uniform(0.4, 1.5), chance.uniform(200, 800)
    octaves = chance.uniform(1, 2.5)
    along = (np.arange(samples) / RATE / period) % 1
    gate = np.minimum(1, np.minimum(along, 1 - along) * 30)
    return gate * _voiced(_phase(low * 2 ** (octaves * along)), chance)


def white(samples: int, chance: Chance) -> np.ndarray:
    """All frequencies alike."""
    return chance.standard_normal(samples)


def pink(samples: int, chance: Chance) -> np.ndarray:
    """Power falls by 3 dB an octave."""
    spectrum = np.fft.rfft(chance.standard_normal(samples))
    hertz = np.fft.rfftfreq(samples, 1 / RATE)
    return np.fft.irfft(spectrum / np.sqrt(np.maximum(hertz, 20)), samples)


def clicks(samples: int, chance: Chance) -> np.ndarray:
    """Short sharp impulses, evenly spaced."""
    pcm = np.zeros(samples)
    length = int(0.006 * RATE)
    shape = chance.standard_normal(length) * np.exp(-np.arange(length) / chance.uniform(8, 20))
    step = int(RATE / chance.uniform(2, 9))
    for at in range(int(chance.integers(step)), samples - length, step):
        pcm[at : at + length] += shape
    return pcm


def knocking(samples: int, chance: Chance) -> np.ndarray:
    """Dull blows in groups of two to four."""
    pcm = np.zeros(samples)
    length = int(0.25 * RATE)
    time = np.arange(length) / RATE
    hertz, decay = chance.uniform(80, 220), chance.uniform(0.02, 0.05)
    gap, pause = chance.uniform(0.17, 0.3), chance.uniform(0.4, 0.9)
    at, count = int(chance.uniform(0, 0.2) * RATE), int(chance.integers(2, 5))
    while at < samples:
        for _ in range(count):
            blow = np.sin(2 * np.pi * hertz * time) + 0.3 * chance.standard_normal(length)
            blow *= np.exp(-time / decay) * chance.uniform(0.7, 1.0)
            room = min(length, samples - at)
            pcm[at : at + room] += blow[: max(room, 0)]
            at += int(gap * RATE)
            if at >= samples:
                break
        at += int(pause * RATE)
    return pcm


def chord(samples: int, chance: Chance) -> np.ndarray:
    """Three or four notes at once, struck again from time to time."""
    steps = ((0, 4, 7), (0, 3, 7), (0, 4, 7, 11), (0, 3, 7, 10), (0, 5, 9))[chance.integers(5)]
    root = 130 * 2 ** chance.uniform(0, 1.6)
    time = np.arange(samples) / RATE
    struck = time % chance.uniform(0.8, 3.0)
    envelope = np.exp(-struck * chance.uniform(0.1, 1.5)) * np.minimum(1, struck * 60)
    notes = [_voiced(2 * np.pi * root * 2 ** (step / 12) * time, chance) for step in steps]
    return envelope * sum(notes)


def rain(samples: int, chance: Chance) -> np.ndarray:
    """A soft hiss with many drops in it."""
    pcm = np.diff(chance.standard_normal(samples + 1)) * 0.06
    length = int(0.012 * RATE)
    time = np.arange(length)
    for at in chance.integers(
        0, max(samples - length, 1), int(samples / RATE * chance.uniform(25, 60))
    ):
        burst = chance.standard_normal(length) * np.exp(-time / chance.uniform(15, 60))
        pcm[at : at + length] += burst * chance.uniform(0.1, 1.0) ** 2
    return pcm


KINDS: dict[str, Callable[[int, Chance], np.ndarray]] = {
    made.__name__: made for made in (tone, siren, chirp, white, pink, clicks, knocking, chord, rain)
}
