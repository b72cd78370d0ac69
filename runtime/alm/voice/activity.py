"""Where somebody speaks, by energy: utterances of a stream that comes in pieces, or of a clip.

Live, from a microphone; pieces may have any size, also none:

    activity = Activity(rate, Settings(longest=10.0))
    for piece in pieces:  # float32 [n], one channel at `rate`, full scale 1.0
        for utterance in activity.feed(piece):  # as soon as it is certain, 0.8 s behind its speech
            answer(kept[utterance.start : utterance.end])  # samples counted from the first piece
    for utterance in activity.finish():
        ...

Of a clip: `utterances(pcm, rate)`. Utterances come in order and do not overlap; whoever keeps
samples may drop those before `activity.needed`. `Detector` is what another way of hearing speech
has to give to be used in this one's place.

The level of a frame is that of the voice's band. What is louder than the floor of noise is speech.
The floor is the level that a tenth of the frames around stay under, so that steady noise is floor
after a second, whatever its loudness, and the gaps between syllables keep it down while somebody
speaks. Sounds that come and go, such as music or knocking, are taken for speech.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np

from alm.errors import BadAudio, BadOption
from alm.voice.floor import FRAME, Floor
from alm.voice.levels import levels


class Utterance(NamedTuple):
    """Samples [start, end) of a stream or clip in which somebody speaks, and a little around."""

    start: int
    end: int


@dataclass(frozen=True)
class Settings:
    """What is an utterance. Times are seconds, levels are dB above the floor of noise.

    An utterance begins with a frame above `onset` and goes on while frames are above `offset`; it
    ends where none was for `hang_over`. It is dropped if fewer of its frames than `least` were
    above `offset`. `before` and `after` are kept around it. One that is longer than `longest` is
    cut at the quietest frame of its last third; 0 leaves it whole.
    """

    onset: float = 9.0
    offset: float = 5.0
    hang_over: float = 0.5
    least: float = 0.09
    before: float = 0.25
    after: float = 0.25
    longest: float = 0.0

    def __post_init__(self) -> None:
        times = (self.hang_over, self.least, self.before, self.after, self.longest)
        if not all(0 <= time < 1e6 for time in times) or not 0 < self.offset <= self.onset < 200:
            raise BadOption(f"seconds are 0 or more, and 0 dB < offset <= onset; got {self}")
        shortest = self.before + self.after + 4 * FRAME
        if 0 < self.longest < shortest:
            raise BadOption(f"longest is {shortest:g} s or more, or 0, not {self.longest:g}")


class Detector(Protocol):
    """What hears utterances in a stream of one channel."""

    @property
    def speaking(self) -> bool: ...
    @property
    def needed(self) -> int: ...
    def feed(self, pcm: np.ndarray) -> list[Utterance]: ...
    def finish(self) -> list[Utterance]: ...


class Activity:
    """Utterances of one stream, the same however its samples are cut into pieces."""

    def __init__(self, rate: int, settings: Settings | None = None) -> None:
        """`rate` in Hz, of which a frame of 30 ms must hold a few samples."""
        if not 1_000 <= rate <= 768_000:
            raise BadOption(f"rate is 1000 to 768000 Hz, not {rate}")
        self.rate, self.settings = rate, settings or Settings()
        self.frame = round(FRAME * rate)  # samples
        self.heard = 0  # samples fed so far
        self._rest = np.zeros(0, np.float32)  # samples that fill no frame yet
        self._floor = Floor()
        self._cutter = Cutter(self.settings)
        self._last = 0  # the end of the utterance before
        self._ended = False

    @property
    def speaking(self) -> bool:
        """Whether an utterance has begun and not ended, as far as frames were judged."""
        return self._cutter.speaking

    @property
    def needed(self) -> int:
        """The first sample that an utterance to come may begin with."""
        before = self._samples(self.settings.before)
        return max(self._last, min(self._cutter.earliest * self.frame, self.heard) - before)

    @property
    def open(self) -> Utterance | None:
        """The utterance that has begun and not ended, as it is if nothing more is said.

        It starts where it says, and ends there or later, unless it is cut for its length.
        """
        span = self._cutter.open
        return self._placed(*span) if span and self._cutter.speaking else None

    def feed(self, pcm: np.ndarray) -> list[Utterance]:
        """Hear float32 [n] more samples; utterances that are certain now.

        Raises:
            BadAudio: it is no such array, or holds what is no finite number, or the stream ended.
        """
        if self._ended:
            raise BadAudio("the stream has ended; another wants an Activity of its own")
        if pcm.ndim != 1 or pcm.dtype != np.float32:
            raise BadAudio(f"wanted float32 [samples], got {pcm.dtype} {list(pcm.shape)}")
        if not np.isfinite(pcm).all():
            raise BadAudio("the stream holds a sample that is not a finite number")
        self.heard += len(pcm)
        rest = np.concatenate([self._rest, pcm])
        whole = len(rest) - len(rest) % self.frame
        self._rest = rest[whole:].copy()
        return self._judged(levels(rest[:whole].reshape(-1, self.frame), self.rate))

    def finish(self) -> list[Utterance]:
        """The stream is over; utterances that were not certain before."""
        if self._ended:
            return []
        self._ended = True
        last = np.pad(self._rest, (0, self.frame - len(self._rest)))[None]
        found = self._judged(levels(last, self.rate)) if len(self._rest) else []
        for level, floor in self._floor.rest():
            found += self._made(self._cutter.push(level, floor))
        return found + self._made(self._cutter.end())

    def _judged(self, new: np.ndarray) -> list[Utterance]:
        found: list[Utterance] = []
        for level in new.tolist():
            for judged, floor in self._floor.push(level):
                found += self._made(self._cutter.push(judged, floor))
        return found

    def _made(self, spans: list[Span]) -> list[Utterance]:
        """Utterances of spans of frames, with what is kept around them."""
        made: list[Utterance] = []
        for span in spans:
            if utterance := self._placed(*span):
                made.append(utterance)
                self._last = utterance.end
        return made

    def _placed(self, start: int, end: int, cut_before: bool, cut_behind: bool) -> Utterance | None:
        before = 0 if cut_before else self._samples(self.settings.before)
        after = 0 if cut_behind else self._samples(self.settings.after)
        begin = max(self._last, start * self.frame - before)
        stop = min(self.heard, end * self.frame + after)
        return Utterance(begin, stop) if stop > begin else None

    def _samples(self, seconds: float) -> int:
        return round(seconds * self.rate)


def utterances(pcm: np.ndarray, rate: int, settings: Settings | None = None) -> list[Utterance]:
    """Utterances of a whole clip, float32 [samples] at `rate` Hz.

    Raises:
        BadAudio: see `Activity.feed`.
    """
    activity = Activity(rate, settings)
    return [*activity.feed(pcm), *activity.finish()]


# Frames [start, end) of speech; whether it was cut before them, and behind them.
Span = tuple[int, int, bool, bool]


class Cutter:
    """Spans of speech from frames and their floors, with hysteresis and a hang-over."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._hang = max(1, round(settings.hang_over / FRAME))
        self._least = max(1, round(settings.least / FRAME))
        around = settings.before + settings.after  # is kept too, and may not make it longer
        self._longest = int((settings.longest - around) / FRAME) if settings.longest else 0
        self._at = 0  # frames judged
        self._start: int | None = None
        self._end = 0  # behind the last active frame
        self._active = 0  # frames
        self._cut = False  # it began with a cut
        self._levels: list[float] = []  # of the open span

    @property
    def speaking(self) -> bool:
        return self._start is not None and (self._cut or self._active >= self._least)

    @property
    def earliest(self) -> int:
        """The first frame that a span to come may begin with."""
        return self._at if self._start is None else self._start

    @property
    def open(self) -> Span | None:
        """The span that has begun, up to its last active frame; None where none is active."""
        if self._start is None or self._end <= self._start:
            return None
        return self._start, self._end, self._cut, False

    def push(self, level: float, floor: float) -> list[Span]:
        """Judge the next frame."""
        above, here = level - floor, self._at
        self._at += 1
        if self._start is None:
            if above >= self.settings.onset:
                self._begin(here, cut=False)
            else:
                return []
        self._levels.append(level)
        if above >= self.settings.offset:
            self._active += 1
            self._end = here + 1
        elif here + 1 - self._end >= self._hang:
            return self.end()
        if self._longest and len(self._levels) >= self._longest:
            return self._cut_off()
        return []

    def end(self) -> list[Span]:
        """Close the open span, if there is one."""
        start, self._start = self._start, None
        if start is None or (not self._cut and self._active < self._least) or self._end <= start:
            return []
        return [(start, self._end, self._cut, False)]

    def _begin(self, frame: int, cut: bool) -> None:
        self._start, self._end, self._active, self._cut = frame, frame, 0, cut
        self._levels = []

    def _cut_off(self) -> list[Span]:
        """The open span up to its quietest frame; the rest stays open."""
        assert self._start is not None
        levels, start, end = self._levels, self._start, self._end
        third = len(levels) - max(1, len(levels) // 3)
        quiet = min(range(third, len(levels)), key=lambda i: (levels[i], -i))
        place = start + quiet + 1
        span = (start, place, self._cut, True)
        self._begin(place, cut=True)
        self._levels = levels[quiet + 1 :]
        self._end = max(place, end)
        self._active = self._end - place
        return [span]
