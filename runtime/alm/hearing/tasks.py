"""What a listener has its model do: hear an utterance, up to its end or as far as it goes."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass

from alm.hearing.events import Final, Partial, Said
from alm.hearing.utterances import Spoken
from alm.voice.activity import Utterance


@dataclass(frozen=True, eq=False)
class Task:
    """An utterance that is to be heard, up to its end or as far as it goes."""

    number: int
    spoken: Spoken
    final: bool


@dataclass(frozen=True)
class Known:
    """What the latest partial was."""

    number: int
    span: Utterance
    answer: Said


def done(run: Generator[str, None, Final | Partial | None]) -> Final | Partial | None:
    """What a run gives, its pieces of text left aside."""
    while True:
        try:
            next(run)
        except StopIteration as end:
            return end.value
