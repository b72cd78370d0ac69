"""How a model hears an utterance: again and again as a clip, or on and on as a stream."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from alm.hearing.events import Said
from alm.live.live import Live

# An utterance's samples and a text that the answer may repeat -> pieces of text, then the answer.
Asking = Callable[[np.ndarray, str], Generator[str, None, Said]]


class Ear(Protocol):
    """What a listener has its utterances heard by."""

    repeats: bool  # it may change its mind about what it said before

    def hear(
        self, number: int, pcm: np.ndarray, before: str, final: bool
    ) -> Generator[str, None, Said]:
        """Pieces of text, then the answer to samples [n] of an utterance, heard from its beginning.

        `before` is what was said of less of it; `final`: there is no more of it.
        """
        ...

    def forget(self) -> None:
        """Let go what is kept of the utterance that goes on."""
        ...


class Clips:
    """A model that hears clips: as much as there is of an utterance is a clip."""

    repeats = True

    def __init__(self, ask: Asking) -> None:
        self._ask = ask

    def hear(
        self, number: int, pcm: np.ndarray, before: str, final: bool
    ) -> Generator[str, None, Said]:
        """See `Ear`."""
        return (yield from self._ask(pcm, before))

    def forget(self) -> None:
        """See `Ear`; nothing is kept."""


@dataclass(frozen=True)
class Written:
    """What a stream was written down as."""

    text: str
    token_ids: list[int]


class Streams:
    """A model that hears a stream: each utterance is one, and what it said stays."""

    repeats = False

    def __init__(self, begin: Callable[[], Live]) -> None:
        self._begin = begin
        self._live: Live | None = None
        self._number = -1

    def hear(
        self, number: int, pcm: np.ndarray, before: str, final: bool
    ) -> Generator[str, None, Said]:
        """See `Ear`."""
        live = self._live
        # An utterance that was cut for its length may end before what was heard of it.
        if not live or number != self._number or live.samples > len(pcm):
            live = self._live = self._begin()
            self._number = number
        said = live.feed(pcm[live.samples :])
        if said:
            yield said
        if final:
            self._live = None
            if rest := live.finish():
                yield rest
        return Written(live.text, [*live.token_ids])

    def forget(self) -> None:
        """See `Ear`."""
        self._live = None
