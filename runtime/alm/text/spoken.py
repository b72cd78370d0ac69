"""Who spoke when, as a model writes it among its words: `[0.48][S01]Welcome.[1.66]`.

Of an answer that is damaged or cut everything that can be read is read. No word is lost: what has
no times of its own takes those around it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from alm.errors import BadArtifacts
from alm.facts import PromptFacts
from alm.text.segments import Segment

PLACE = "{}"  # of a time or a speaker's number, in the manifest's marks
TIME = r"(?:[0-9]{1,4}:){0,2}[0-9]{1,6}(?:\.[0-9]{1,6})?"  # 7.56, 1:23.5 or 01:02:03
SHOWN = 40  # characters of a text that a note repeats


@dataclass
class _Piece:
    """A text with the times that it has; seconds of what was heard."""

    text: str = ""
    start: float | None = None
    end: float | None = None
    speaker: str = ""


class Spoken:
    """The marks of an answer's segments: a time, who speaks, the text, another time.

    A time that has no `{}` says that answers are plain text.
    """

    def __init__(self, prompt: PromptFacts) -> None:
        """Raises BadArtifacts for marks that are none."""
        self.names = bool(prompt.speaker_mark)
        self._mark = self._unfinished = None
        if not prompt.time_mark:
            return
        for mark in filter(None, (prompt.time_mark, prompt.speaker_mark)):
            if mark.count(PLACE) != 1 or mark.startswith(PLACE) or mark.endswith(PLACE):
                raise BadArtifacts(
                    f"the manifest's prompt has the mark {mark!r:.80}, which wants one {PLACE} "
                    "within it"
                )
        before, after = map(re.escape, prompt.time_mark.split(PLACE))
        marks = [rf"{before}\s*(?P<time>{TIME})\s*{after}"]
        begun = [rf"{before}[0-9:.\s]*"]
        if prompt.speaker_mark:
            before, after = prompt.speaker_mark.split(PLACE)
            bare = before.rstrip("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")
            letters = before[len(bare) :]  # belong to the name
            marks.append(rf"{re.escape(bare)}(?P<who>{letters}[0-9]{{1,4}}){re.escape(after)}")
            begun.append(rf"{re.escape(bare)}{letters}[0-9]*")
        self._mark = re.compile("|".join(marks))
        self._unfinished = re.compile(rf"(?:{'|'.join(begun)})\Z")

    def read(self, text: str, seconds: float) -> tuple[list[Segment] | None, list[str]]:
        """The answer's segments in its order, and what was wrong with it, as notes.

        Args:
            text: the whole answer.
            seconds: how much was heard; no time is beyond it.

        Returns:
            No list where the answer names no time, or where such answers are plain text.
        """
        if self._mark is None or self._unfinished is None:
            return None, []
        cut = self._unfinished.search(text)
        marks = [*self._mark.finditer(text, 0, cut.start() if cut else len(text))]
        if all(mark.lastgroup != "time" for mark in marks):
            return None, ["the answer names no times; its segment is all that was heard"]
        whole = text[: cut.start()] if cut else text
        pieces = [piece for piece in _pieces(whole, marks) if piece.text]
        notes = [*_faults(pieces, seconds, self.names)]
        if cut:
            notes.append(f"the answer ends within a mark: {cut[0]!r:.{SHOWN}}")
        return [*_placed(pieces, seconds)], notes


def _pieces(text: str, marks: Sequence[re.Match[str]]) -> Iterator[_Piece]:
    """The text between marks, each with the times and the speaker that it has.

    A time with a speaker behind it begins a segment. Another ends the one that was begun, if the
    next mark or the end of the text follows; else it is a number that was spoken.
    """
    piece, at = _Piece(), 0
    for i, mark in enumerate(marks):
        if mark.lastgroup != "time":
            continue
        until = marks[i + 1].start() if i + 1 < len(marks) else len(text)
        close = not text[mark.end() : until].strip()  # to the next mark, or the end
        after = marks[i + 1] if close and i + 1 < len(marks) else None
        named = after is not None and after.lastgroup == "who"
        ends = piece.start is not None and close and not named
        if piece.start is not None and not ends and not named:
            continue
        time = _seconds(mark["time"])
        piece.text, piece.end = text[at : mark.start()].strip(), time if ends else None
        yield piece
        piece, at = _Piece(start=None if ends else time), mark.end()
        if named and after is not None:
            piece.speaker, at = after["who"], after.end()
    piece.text = text[at:].strip()
    yield piece


def _faults(pieces: Sequence[_Piece], seconds: float, names: bool) -> Iterator[str]:
    """What the times and speakers of these lack, in words."""
    loose = [piece for piece in pieces if piece.start is None]
    timed = [piece for piece in pieces if piece.start is not None]
    of = f"of the answer's {len(pieces)} segments"
    if loose:
        yield f"without times: {len(loose)} {of}; they take those around: {loose[0].text[:SHOWN]!r}"
    if count := sum(_end(piece) is None for piece in timed):
        yield f"without an end behind the start: {count} {of}; they last until the next"
    if count := sum(not piece.speaker for piece in timed) if names else 0:
        yield f"without a speaker: {count} {of}"
    if count := sum((piece.start or 0) > seconds for piece in timed):
        yield f"behind the end of the sound: {count} {of}"


def _end(piece: _Piece) -> float | None:
    """The end, where there is one behind the start."""
    start, end = piece.start, piece.end
    return None if start is None or end is None or end < start else end


def _placed(pieces: Sequence[_Piece], seconds: float) -> Iterator[Segment]:
    """Segments; a time that is missing is that of a neighbour."""
    starts = [seconds]  # of what follows each piece, the last first
    for piece in reversed(pieces):
        starts.append(starts[-1] if piece.start is None else piece.start)
    before = 0.0
    for piece, after in zip(pieces, starts[-2::-1], strict=True):
        start = min(before if piece.start is None else piece.start, seconds)
        end = _end(piece)
        before = min(max(after if end is None else end, start), seconds)
        yield Segment(round(start, 3), round(before, 3), piece.text, speaker=piece.speaker)


def shifted(segments: Sequence[Segment], seconds: float) -> list[Segment]:
    """The segments so much later."""
    return [
        replace(s, start=round(s.start + seconds, 3), end=round(s.end + seconds, 3))
        for s in segments
    ]


def _seconds(time: str) -> float:
    """`7.56`, `1:23` or `01:02:03` in seconds."""
    return sum(float(part) * 60**i for i, part in enumerate(reversed(time.split(":"))))
