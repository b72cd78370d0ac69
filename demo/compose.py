"""Clips composed from voices and sounds, with all that is known about what is heard in them."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from demo import phrases, sounds, voices
from demo.voices import RATE, Said, Takes, Voice

WINDOW_SECONDS = 10
SPEAKERS = ("george", "jackson", "lucas", "nicolas")
HELD_OUT_SPEAKER = "yweweler"
WORD_IDS = {word: i for i, word in enumerate(phrases.WORDS)}
SOUND_IDS = {name: i for i, name in enumerate(phrases.SOUNDS)}
SOUND_NAMES = tuple(phrases.SOUNDS)


@dataclass(frozen=True)
class Clip:
    """A sound file in the making, and all that is known about it."""

    pcm: np.ndarray
    words: tuple[tuple[str, float, float], ...]
    sound: str

    @property
    def text(self) -> str:
        return " ".join(word for word, _, _ in self.words)


@dataclass(frozen=True)
class Sources:
    """Where clips come from; the held-out ones for measuring."""

    variants: Sequence[str]
    takes: Takes
    shares: dict[str, float]  # of command, digits, recorded and sound
    background: float  # share of speech that has a sound behind it
    disturb: bool = True


def compose(kind: str, sources: Sources, chance: random.Random) -> Clip:
    """One clip of at most the window: speech, speech over a sound, or a sound."""
    draw = np.random.default_rng(chance.getrandbits(63))
    if kind == "sound":
        name = chance.choice(SOUND_NAMES)
        pcm = sounds.make(name, chance.uniform(1.2, 5.0), draw)
        return Clip(_levelled(pcm, chance), (), name)
    said = _speech(kind, sources, chance)
    while len(said.pcm) > (WINDOW_SECONDS - 0.6) * RATE:
        said = _speech(kind, sources, chance)
    pcm, sound = said.pcm, ""
    pcm = pcm / max(float(np.abs(pcm).max()), 1e-9)
    if sources.disturb and chance.random() < 0.25:
        pcm = _in_a_room(pcm, chance, draw)
    shift = 0.0
    if chance.random() < sources.background:
        sound = chance.choice(SOUND_NAMES)
        pcm, shift = _over(pcm, sound, chance, draw)
    words = tuple((word, start + shift, end + shift) for word, start, end in said.words)
    return Clip(_levelled(pcm, chance), words, sound)


def _speech(kind: str, sources: Sources, chance: random.Random) -> Said:
    stretch = chance.uniform(0.87, 1.15) if sources.disturb else 1.0
    if kind == "recorded":
        speaker = chance.choice(sorted({speaker for speaker, _ in sources.takes}))
        names = phrases.digits(chance).split()
        chosen = [chance.choice(sources.takes[speaker, str(WORD_IDS[name])]) for name in names]
        digits = [(n, voices.recording(path)) for n, path in zip(names, chosen, strict=True)]
        return voices.string_together(digits, chance, stretch)
    text = phrases.command(chance) if kind == "command" else phrases.digits(chance)
    if kind == "digits" and chance.random() < 0.4:
        text = text.replace(" ", ", ")  # each is said on its own, with a pause
    return voices.speak(text, Voice.drawn(chance, sources.variants), stretch)


def _over(
    pcm: np.ndarray, sound: str, chance: random.Random, draw: np.random.Generator
) -> tuple[np.ndarray, float]:
    """Speech over a sound that begins before it and lasts longer; and by how much it is later."""
    lead = chance.uniform(0.0, 0.4)
    tail = chance.uniform(0.0, 0.4)
    pcm = np.pad(pcm, (int(lead * RATE), int(tail * RATE)))
    if len(pcm) < RATE:
        pcm = np.pad(pcm, (0, RATE - len(pcm)))
    behind = sounds.make(sound, len(pcm) / RATE + 0.01, draw)[: len(pcm)]
    loudness = float(np.sqrt(np.mean(pcm**2)) / max(float(np.sqrt(np.mean(behind**2))), 1e-9))
    return pcm + behind * loudness * 10 ** (-chance.uniform(3, 15) / 20), lead


def _in_a_room(pcm: np.ndarray, chance: random.Random, draw: np.random.Generator) -> np.ndarray:
    """With an echo: noise that dies away within 0.1 to 0.4 s."""
    length = int(chance.uniform(0.1, 0.4) * RATE)
    decay = np.exp(-6.9 * np.arange(length) / length)
    response = draw.standard_normal(length) * decay * chance.uniform(0.02, 0.12)
    response[0] = 1.0
    size = 1 << (len(pcm) + length).bit_length()
    wet = np.fft.irfft(np.fft.rfft(pcm, size) * np.fft.rfft(response, size), size)
    return wet[: len(pcm)].astype(np.float32)


def _levelled(pcm: np.ndarray, chance: random.Random) -> np.ndarray:
    peak = max(float(np.abs(pcm).max()), 1e-9)
    return (pcm / peak * 10 ** (-chance.uniform(0, 22) / 20)).astype(np.float32)
