"""Speech in many voices: espeak-ng's own, with the place of every word, and recorded digits."""

from __future__ import annotations

import ctypes
import ctypes.util
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import soundfile
import soxr

from alm.errors import BadOption, MissingFile

RATE = 16_000  # Hz
ACCENTS = ("en", "en-us", "en-gb-scotland", "en-gb-x-gbclan", "en-gb-x-rp", "en-us-nyc", "en-029")
VARIANTS: Sequence[str] = (
    "m1 m2 m3 m6 m7 m8 f1 f2 f5 klatt klatt3 klatt5 grandpa grandma croak Adam Alex Annie Antonio "
    "Auntie Belinda Benjamin Boris Caleb David Ed Edward Gene Gustave Henrique Iven Jacky John Lee "
    "Linda Marcelo Mario Max Michael Miguel Mike Mr_Serious Nguyen Paul Pedro Quincy Rob Robert "
    "sandro shelby Steph Storm travis victor Zac anika"
).split()
HELD_OUT_VARIANTS: Sequence[str] = (
    "m4 m5 f3 f4 klatt2 Alicia Andrea Andy Denis Marco Hugo Steph3 norbert".split()
)

SYNCHRONOUS, CHARACTERS, UTF8 = 2, 1, 1  # espeak-ng's constants
LAST_EVENT, WORD_EVENT = 0, 1
SPEED, PITCH, RANGE = 1, 3, 4


@dataclass(frozen=True)
class Said:
    """Speech and its words: (word, start, end) in seconds."""

    pcm: np.ndarray
    words: tuple[tuple[str, float, float], ...]


@dataclass(frozen=True)
class Voice:
    """An espeak-ng voice; speed in words a minute, pitch and its range from 0 to 99."""

    name: str
    speed: int = 175
    pitch: int = 50
    pitch_range: int = 50

    @classmethod
    def drawn(cls, chance: random.Random, variants: Sequence[str]) -> Voice:
        """Any accent with one of these variants."""
        name = f"{chance.choice(ACCENTS)}+{chance.choice(variants)}"
        return cls(name, chance.randint(110, 200), chance.randint(15, 85), chance.randint(20, 80))


class _Event(ctypes.Structure):
    _fields_ = [
        ("kind", ctypes.c_int),
        ("number", ctypes.c_uint),
        ("text_position", ctypes.c_int),  # in characters, from 1
        ("length", ctypes.c_int),
        ("milliseconds", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", ctypes.c_char * 8),
    ]


_Callback = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event)
)


class _Engine:
    """The espeak-ng library; one a process, as it keeps its state in globals."""

    def __init__(self) -> None:
        name = ctypes.util.find_library("espeak-ng") or "libespeak-ng.so.1"
        try:
            self.library = ctypes.CDLL(name)
        except OSError as error:
            raise MissingFile("no libespeak-ng; try: apt-get install espeak-ng") from error
        self.rate: int = self.library.espeak_Initialize(SYNCHRONOUS, 0, None, 0)
        self.pieces: list[np.ndarray] = []
        self.starts: list[tuple[int, float]] = []
        self.callback = _Callback(self._heard)  # kept alive: the library holds only its address
        self.library.espeak_SetSynthCallback(self.callback)

    def _heard(self, samples, count, events) -> int:  # type: ignore[no-untyped-def]
        if samples and count:
            self.pieces.append(np.ctypeslib.as_array(samples, (count,)).copy())
        at = 0
        while events[at].kind != LAST_EVENT:
            if events[at].kind == WORD_EVENT:
                self.starts.append((events[at].text_position - 1, events[at].milliseconds / 1e3))
            at += 1
        return 0

    def say(self, text: str, voice: Voice) -> tuple[np.ndarray, list[tuple[int, float]]]:
        """Samples at `self.rate` and, for each word heard, its place in the text and its start."""
        self.pieces, self.starts = [], []
        if self.library.espeak_SetVoiceByName(voice.name.encode()):
            raise BadOption(f"espeak-ng has no voice {voice.name!r}")
        settings = ((SPEED, voice.speed), (PITCH, voice.pitch), (RANGE, voice.pitch_range))
        for parameter, value in settings:
            self.library.espeak_SetParameter(parameter, value, 0)
        raw = text.encode()
        self.library.espeak_Synth(raw, len(raw) + 1, 0, CHARACTERS, 0, UTF8, None, None)
        pcm = np.concatenate(self.pieces) if self.pieces else np.zeros(1, np.int16)
        return pcm.astype(np.float32) / 2**15, self.starts


@cache
def _engine() -> _Engine:
    return _Engine()


def speak(text: str, voice: Voice, stretch: float = 1.0) -> Said:
    """`text` in this voice. A stretch above 1 makes it slower and its speaker larger."""
    engine = _engine()
    pcm, starts = engine.say(text, voice)
    pcm = soxr.resample(pcm, engine.rate, RATE * stretch).astype(np.float32)
    first, last = _loud(pcm)
    begun = {place: start * stretch for place, start in starts}
    words, place = [], 0
    for word in text.split():
        place = text.index(word, place)
        words.append((word.strip(","), begun.get(place)))
        place += len(word)
    return Said(pcm[first:last], _bounded(words, first / RATE, last / RATE))


def _bounded(
    words: list[tuple[str, float | None]], first: float, last: float
) -> tuple[tuple[str, float, float], ...]:
    """Words with start and end. espeak-ng says "in the" as one word: such share their time."""
    starts: list[float | None] = [None if s is None else max(s - first, 0.0) for _, s in words]
    starts[0] = 0.0
    edges = [*starts, last - first]
    at = 0
    while at < len(words):
        end = next(i for i in range(at + 1, len(edges)) if edges[i] is not None)
        begin, finish = edges[at] or 0.0, edges[end] or 0.0
        for i in range(at, end):
            edges[i] = begin + (finish - begin) * (i - at) / (end - at)
        at = end
    times = [float(edge or 0.0) for edge in edges]
    return tuple((w, times[i], times[i + 1]) for i, (w, _) in enumerate(words))


def _loud(pcm: np.ndarray, floor: float = 0.02) -> tuple[int, int]:
    """First and last sample around what is louder than `floor` of the peak."""
    loud = np.flatnonzero(np.abs(pcm) > floor * np.abs(pcm).max(initial=1e-9))
    return (int(loud[0]), int(loud[-1]) + 1) if len(loud) else (0, len(pcm))


# --- recorded digits

Takes = Mapping[tuple[str, str], list[Path]]  # (speaker, digit) -> files


def takes(folder: Path, speakers: list[str], held_out: bool) -> Takes:
    """Files of the Free Spoken Digit Dataset; by its own rule takes 0 to 4 are for testing."""
    found: dict[tuple[str, str], list[Path]] = {}
    for path in sorted(folder.glob("*.wav")):
        digit, speaker, take = path.stem.split("_")
        if speaker in speakers and (int(take) < 5) == held_out:
            found.setdefault((speaker, digit), []).append(path)
    if not found:
        raise MissingFile(f"no recordings of {', '.join(speakers)} in {folder}")
    return found


@cache
def recording(path: Path) -> np.ndarray:
    """One digit at 16 kHz, silence cut off at both ends, its peak at 1."""
    pcm, rate = soundfile.read(path, dtype="float32")
    pcm = soxr.resample(pcm, rate, RATE).astype(np.float32)
    pcm /= np.abs(pcm).max(initial=1e-9)
    first, last = _loud(pcm, 0.04)
    margin = RATE // 50
    return pcm[max(first - margin, 0) : last + margin]


def string_together(
    digits: list[tuple[str, np.ndarray]], chance: random.Random, stretch: float = 1.0
) -> Said:
    """Recorded digits one after the other, with pauses of 0 to 0.3 s."""
    pieces: list[np.ndarray] = []
    words, at = [], 0
    for word, pcm in digits:
        if stretch != 1.0:
            pcm = soxr.resample(pcm, RATE, RATE * stretch).astype(np.float32)
        pcm = pcm * chance.uniform(0.5, 1.0)
        words.append((word, at / RATE, (at + len(pcm)) / RATE))
        pause = np.zeros(int(RATE * chance.uniform(0.0, 0.3)), np.float32)
        pieces += [pcm, pause]
        at += len(pcm) + len(pause)
    return Said(np.concatenate(pieces[:-1]), tuple(words))
