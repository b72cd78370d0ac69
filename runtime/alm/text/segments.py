"""Pieces of an answer with their times, and the files that players take: SubRip and WebVTT."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Word:
    """A word and when it is spoken, in seconds of the clip."""

    text: str
    start: float
    end: float


@dataclass(frozen=True)
class Segment:
    """A piece of the text, in seconds of the clip; `words` where they were timed.

    `speaker` is the model's own name for who speaks, such as `S01`, where it tells them apart.
    """

    start: float
    end: float
    text: str
    words: tuple[Word, ...] = ()
    speaker: str = ""


def srt(segments: Iterable[Segment]) -> str:
    """SubRip: numbered, with commas in the times; a speaker is `S01: `."""
    cues = (
        f"{number}\n{_clock(s.start, ',')} --> {_clock(s.end, ',')}\n"
        f"{f'{s.speaker}: ' if s.speaker else ''}{_line(s.text)}\n"
        for number, s in enumerate(_in_order(segments), 1)
    )
    return "\n".join(cues)


def vtt(segments: Iterable[Segment]) -> str:
    """WebVTT, a speaker as its voice; `-->` in a text would end it, and is spelled otherwise."""
    cues = (
        f"\n{_clock(s.start, '.')} --> {_clock(s.end, '.')}\n"
        f"{f'<v {_escaped(s.speaker)}>' if s.speaker else ''}{_escaped(_line(s.text))}\n"
        for s in _in_order(segments)
    )
    return "WEBVTT\n" + "".join(cues)


def _in_order(segments: Iterable[Segment]) -> list[Segment]:
    """By their starts, as players want them; who speaks at once may be told in any order."""
    return sorted(segments, key=lambda segment: segment.start)


def _clock(seconds: float, comma: str) -> str:
    ms = round(seconds * 1000)
    return f"{ms // 3_600_000:02}:{ms // 60_000 % 60:02}:{ms // 1000 % 60:02}{comma}{ms % 1000:03}"


def _line(text: str) -> str:
    """An empty line would end the cue."""
    return "\n".join(filter(None, (line.strip() for line in text.splitlines())))


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def words_of(segments: Sequence[Segment]) -> list[Word]:
    """All words, in their order."""
    return [word for segment in segments for word in segment.words]
