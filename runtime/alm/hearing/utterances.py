"""Utterances of a stream with their sound, cut by who speaks or by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np

from alm.errors import BadOption
from alm.hearing.sound import Sound
from alm.voice.activity import Activity, Settings, Utterance
from alm.voice.floor import AHEAD, FRAME

PAUSE = 0.1  # seconds of silence after which an utterance may be over
LONGEST = 30.0  # seconds of an utterance, where the model hears more


def cut(pauses: Settings, window: float) -> Settings:
    """The same with no utterance longer than the model's window, in seconds.

    Raises:
        BadOption: longer ones are asked for.
    """
    if pauses.longest > window:
        raise BadOption(f"longest is {pauses.longest:g} s, and this model hears {window:g} s")
    return replace(pauses, longest=pauses.longest or min(window, LONGEST))


class Spoken(NamedTuple):
    """Samples [start, end) of a stream that are an utterance, and their sound float32 [n]."""

    start: int
    end: int
    pcm: np.ndarray


class Utterances:
    """What is said in one stream.

    Without settings of pauses nothing is listened for: `commit` alone ends an utterance, and it is
    all that came since the one before it.
    """

    def __init__(self, rate: int, pauses: Settings | None) -> None:
        self.rate, self.pauses = rate, pauses
        self.heard = 0  # samples
        self._sound = Sound()
        self._base = 0  # the sample that is the detector's first
        self._activity = Activity(rate, pauses) if pauses else None

    @property
    def open(self) -> Utterance | None:
        """The utterance that goes on, as it is if nothing more is said; None where none does."""
        if self._activity:
            span = self._activity.open
            return span and Utterance(self._base + span.start, self._base + span.end)
        return Utterance(self._base, self.heard) if self.heard > self._base else None

    @property
    def pausing(self) -> bool:
        """Whether the open utterance ends here, unless somebody speaks on."""
        span = self.open
        if not span or not self.pauses:
            return False
        unjudged = AHEAD + FRAME - self.pauses.after
        return self.heard - span.end > (unjudged + PAUSE) * self.rate

    @property
    def held(self) -> int:
        """Samples whose sound is kept."""
        return self._sound.end - self._sound.start

    def feed(self, pcm: np.ndarray) -> list[Spoken]:
        """Hear float32 [n] more samples; the utterances that have ended."""
        self._sound.append(pcm)
        self.heard += len(pcm)
        if not self._activity:
            return []
        found = self._spoken(self._activity.feed(pcm))
        self._sound.drop(self._base + self._activity.needed)
        return found

    def commit(self) -> list[Spoken]:
        """End the utterance that goes on; what comes is heard as another stream's beginning."""
        if self._activity:
            found = self._spoken(self._activity.finish())
        else:
            found = self._spoken([Utterance(0, self.heard - self._base)] if self.open else [])
        self.clear()
        return found

    def clear(self) -> None:
        """Forget the utterance that goes on."""
        self._base = self.heard
        self._sound.drop(self.heard)
        self._activity = Activity(self.rate, self.pauses) if self.pauses else None

    def between(self, span: Utterance) -> np.ndarray:
        """The sound of the open utterance, float32 [n]."""
        return self._sound.between(*span)

    def _spoken(self, found: list[Utterance]) -> list[Spoken]:
        spans = [(self._base + start, self._base + end) for start, end in found]
        return [Spoken(start, end, self._sound.between(start, end)) for start, end in spans]
