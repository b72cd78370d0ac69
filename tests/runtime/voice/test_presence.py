"""Speech is never taken for silence, and silence, hiss, hum and steady noise never for speech."""

from __future__ import annotations

import numpy as np
import pytest
import soundfile
import soxr

from alm.voice.presence import has_speech
from demo import sounds
from tests import ROOT
from tests.reference import DIGITS, LIBRISPEECH

RATE = 16_000
SPEECH = [ROOT / "demo" / "lamp.wav", ROOT / "demo" / "digits.wav", *LIBRISPEECH, *DIGITS]


def recorded(index: int) -> np.ndarray:
    """A recording of speech at 16 kHz, its louder half at 0 dB of full scale."""
    pcm, rate = soundfile.read(SPEECH[index], dtype="float32")
    pcm = soxr.resample(pcm, rate, RATE)
    blocks = np.array_split(np.square(pcm), max(1, len(pcm) // 480))
    power = np.sort([block.mean() for block in blocks])
    return pcm / np.sqrt(power[len(power) // 2 :].mean())


def steady(kind: str, seconds: float, seed: int = 0) -> np.ndarray:
    """A sound without speech that goes on and on, at 0 dB."""
    chance = np.random.default_rng(seed)
    time = np.arange(int(seconds * RATE)) / RATE
    if kind in ("white", "pink"):
        made = sounds.KINDS[kind](len(time), chance)
    elif kind == "hum":
        made = np.sum([np.sin(2 * np.pi * 50 * n * time) / n for n in range(1, 12)], axis=0)
    elif kind == "hum and hiss":
        made = np.sum([np.sin(2 * np.pi * 60 * n * time) / n for n in range(1, 12)], axis=0)
        made = made + 0.05 * chance.standard_normal(len(time))
    elif kind == "fan":
        spectrum = np.fft.rfft(chance.standard_normal(len(time)))
        hertz = np.fft.rfftfreq(len(time), 1 / RATE)
        made = np.fft.irfft(spectrum * np.exp(-(((hertz - 300) / 400) ** 2)), len(time))
        made = made * (1 + 0.1 * np.sin(2 * np.pi * 1.1 * time))
    else:
        made = np.sin(2 * np.pi * 700 * time)
    return made / made.std()


def at(pcm: np.ndarray, level: float) -> np.ndarray:
    return (pcm * 10 ** (level / 20)).astype(np.float32)


@pytest.mark.parametrize("index", range(len(SPEECH)))
@pytest.mark.parametrize("level", [-10, -30, -50])
def test_speech_is_heard_at_any_level(index: int, level: float) -> None:
    assert has_speech(at(recorded(index), level), RATE)
    sixteen_bits = np.round(at(recorded(index), level) * 32768) / 32768
    assert has_speech(sixteen_bits.astype(np.float32), RATE)


@pytest.mark.parametrize("index", range(4))
@pytest.mark.parametrize("kind", ["white", "pink", "hum and hiss", "fan"])
@pytest.mark.parametrize("snr", [10, 0, -5])
def test_speech_is_heard_through_noise(index: int, kind: str, snr: float) -> None:
    speech = recorded(index)
    noise = steady(kind, len(speech) / RATE + 0.01, seed=index)[: len(speech)]
    assert has_speech(at(speech, -35) + at(noise, -35 - snr), RATE)


@pytest.mark.parametrize("rate", [8_000, 24_000, 48_000])
def test_speech_and_noise_are_told_apart_at_any_rate(rate: int) -> None:
    assert has_speech(soxr.resample(at(recorded(0), -40), RATE, rate), rate)
    noise = np.random.default_rng(0).standard_normal(10 * rate) * 0.01
    assert not has_speech(noise.astype(np.float32), rate)


@pytest.mark.parametrize("kind", ["white", "pink", "hum", "hum and hiss", "fan", "tone"])
@pytest.mark.parametrize("seconds", [1.0, 3.3, 10.0, 30.0])
def test_what_is_steady_is_no_speech(kind: str, seconds: float) -> None:
    for seed, level in enumerate((-3, -30, -60)):
        assert not has_speech(at(steady(kind, seconds, seed), level), RATE)


def test_silence_is_no_speech() -> None:
    chance = np.random.default_rng(0)
    dither = (chance.integers(-1, 2, 5 * RATE) / 32768).astype(np.float32)
    for silent in (np.zeros(5 * RATE, np.float32), dither, np.zeros(1, np.float32)):
        assert not has_speech(silent, RATE)
    assert not has_speech(np.zeros(0, np.float32), RATE)
    late = np.concatenate([np.zeros(RATE, np.float32), at(steady("white", 4), -40)])
    assert not has_speech(late, RATE)  # a microphone that opens
    clicks = np.zeros(5 * RATE, np.float32)
    clicks[RATE] = clicks[3 * RATE] = 0.5
    assert not has_speech(clicks, RATE)


def test_a_word_in_a_long_silence_or_noise_is_found() -> None:
    for seconds in (0.0, 7.3, 25.0):
        for noise in (0.0, 1.0):
            pcm = at(steady("white", 30), -60) * np.float32(noise)
            word = at(recorded(4 + len(LIBRISPEECH) - 2), -40)
            start = int(seconds * RATE)
            pcm[start : start + len(word)] += word
            assert has_speech(pcm, RATE)


def test_what_is_too_short_to_tell_is_heard() -> None:
    assert has_speech(np.full(1, 0.3, np.float32), RATE)
    assert has_speech(at(steady("white", 0.5), -40), RATE)
