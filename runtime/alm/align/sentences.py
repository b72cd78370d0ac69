"""Timed words as segments that can be read: sentences, cut where they are long."""

from __future__ import annotations

from collections.abc import Sequence

from alm.align.words import Place
from alm.text.segments import Segment, Word

ENDS = frozenset(".?!…。？！")
LONGEST, WIDEST = 7.0, 84  # seconds and characters: two lines of a subtitle
PAUSE = 1.5  # seconds without a word


def segments(text: str, timed: Sequence[tuple[Place, Word]]) -> list[Segment]:
    """The whole text in segments, each with its words; none for a text without words."""
    if not timed:
        return []
    begins = [0]
    for i in range(1, len(timed)):
        if _parts(text, timed[begins[-1] : i], timed[i]):
            begins.append(i)
    made: list[Segment] = []
    for begin, end in zip(begins, [*begins[1:], len(timed)], strict=True):
        words = [word for _, word in timed[begin:end]]
        first = timed[begin][0].start if begin else 0  # with a quotation mark before it
        last = timed[end][0].start if end < len(timed) else len(text)
        piece = text[first:last].strip()
        made.append(Segment(words[0].start, words[-1].end, piece, tuple(words)))
    return made


def _parts(text: str, before: Sequence[tuple[Place, Word]], after: tuple[Place, Word]) -> bool:
    """Whether a segment of the words before does not go on with the word after."""
    (first, begin), (last, end) = before[0], before[-1]
    place, word = after
    return (
        not ENDS.isdisjoint(text[last.end : place.start])
        or word.end - begin.start > LONGEST
        or place.end - first.start > WIDEST
        or word.start - end.end > PAUSE
    )
