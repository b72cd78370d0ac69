"""A live run: samples as they come, text as it becomes certain."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any, Protocol

import numpy as np

from alm.decoding import search
from alm.decoding.options import Options
from alm.errors import BadAudio, BadOption
from alm.live.hearing import Hearing, behind, steps
from alm.ports import SPARE
from alm.text.detokenizer import Stops, TextStream

ENDLESS = 2**62


class Sliding(Protocol):
    """A decoder whose cache may forget its beginning, as `decoder.decoder.Decoder` is."""

    lengths: np.ndarray
    table: Any

    @property
    def held(self) -> int: ...
    def start(self, rows: int, most: int) -> None: ...
    def feed(self, embeds: np.ndarray, lengths: np.ndarray) -> np.ndarray: ...
    def slide(self, kept: int) -> None: ...


class Live:
    """One stream of sound and what is said of it; made by `Model.live`.

    Samples go in by `feed`, in pieces of any size, and text comes out as soon as it is certain;
    `finish` ends the sound. What is said is what the whole sound, given at once, is answered with.
    Memory does not grow with the stream, but by its tokens and text.
    """

    def __init__(
        self,
        hearing: Hearing,
        decoder: Sliding,
        stream: TextStream,
        *,
        prompt: Sequence[int],
        delay: int,
        eos: frozenset[int],
        stops: Stops,
        silent: frozenset[int],
        options: Options,
    ) -> None:
        """`prompt` are the ids before the first token said, `delay` steps; `silent` say nothing."""
        if options.num_beams > 1:
            raise BadOption("a live run follows one hypothesis: num_beams is 1 there")
        if options.forced_ends:
            raise BadOption("a live run has no last token that forced_eos_token_id could be")
        self.token_ids: list[int] = []
        self.ended = False  # by a token or a text that ends an answer, or by its length
        self._hearing, self._decoder, self._delay = hearing, decoder, delay
        self._prompt, self._options, self._eos = list(prompt), options, eos
        self._rows: deque[np.ndarray] = deque()  # [hidden] of steps heard and not yet fed
        self._kept = hearing.facts.window - 1  # positions that the next one still sees
        self._room = max(self._kept, len(prompt)) + SPARE
        self._finished = False
        self._steps: Iterator[search.Step] | None = None
        self._stops, self._stream, self._silent = stops, stream, silent
        self._pieces: list[str] = []

    @property
    def text(self) -> str:
        """All that was said so far."""
        return "".join(self._pieces).strip()

    @property
    def samples(self) -> int:
        """Heard so far."""
        return self._hearing.samples

    def feed(self, samples: np.ndarray | Sequence[float]) -> str:
        """Hear samples at the model's rate, float32 [n] between -1 and 1; gives the new text.

        Raises:
            BadAudio: they are no row of finite numbers.
            BadOption: the sound was ended.
        """
        if self._finished:
            raise BadOption("the sound was ended; begin another live run for more")
        if self.ended:  # the sound goes on, and nothing more is said of it
            return ""
        return "".join(self._said(self._hearing.feed(checked(samples))))

    def finish(self) -> str:
        """The sound has ended: gives the rest of the text. A second time there is none."""
        if self._finished:
            return ""
        self._finished = True
        hearing = self._hearing
        silence = behind(hearing.facts, hearing.samples, self._delay)
        said = "" if self.ended else "".join(self._said(hearing.end(silence)))
        rest = self._stream.finish()
        rest = rest if self._pieces else rest.lstrip()
        self._pieces.append(rest)
        self.ended = True
        return said + rest

    def follow(self, chunks: Iterable[np.ndarray]) -> Generator[str, None, None]:
        """Pieces of text as they become certain, of all chunks of samples to their end."""
        for samples in chunks:
            if piece := self.feed(samples):
                yield piece
            if self.ended:
                return
        if piece := self.finish():
            yield piece

    def _said(self, heard: Iterator[np.ndarray]) -> Iterator[str]:
        """What is said at steps as they are heard."""
        for rows in heard:
            self._rows.extend(rows)
            if self._steps is None and len(self._rows) >= len(self._prompt):
                self._steps = self._begin()
                yield self._step(self._steps)
            while self._steps and self._rows and not self.ended and not self._last():
                yield self._step(self._steps)

    def _last(self) -> bool:
        """Whether the token of the last step was said: the sound then has no step for it."""
        if not self._finished:
            return False
        whole = steps(self._hearing.facts, self._hearing.samples, self._delay)
        return len(self._prompt) + len(self.token_ids) >= whole

    def _begin(self) -> Iterator[search.Step]:
        """Feed the prompt and its steps; tokens from then on, a step of sound for each."""
        ids, count = np.array(self._prompt, np.int64), len(self._prompt)
        audio = np.stack([self._rows.popleft() for _ in range(count)])
        self._decoder.start(1, self._room)
        embeds = (self._decoder.table(ids) + audio)[None]
        logits = self._decoder.feed(embeds, np.array([count], np.int64))
        return search.decode(
            logits,
            self,
            self._options,
            eos_ids=self._eos,
            stopped=(lambda _, ids: self._stops.reached(ids)) if self._stops.strings else None,
            prompts=[self._prompt],
        )

    def _step(self, tokens: Iterator[search.Step]) -> str:
        """One token more, and the text that it makes certain."""
        step = next(tokens)
        self.ended = bool(step.ended)
        self.token_ids.append(step.tokens[0])
        if step.tokens[0] in self._silent:
            return ""
        piece = self._stream.push(step.tokens[0])
        if not self._pieces:
            piece = piece.lstrip()
        self._pieces += [piece] * bool(piece)
        return piece

    # --- what `search.decode` needs

    def step(self, token_ids: np.ndarray) -> np.ndarray:
        """See `steps.Decoder`."""
        if self._decoder.held >= self._room:
            self._decoder.slide(self._kept)
        embeds = self._decoder.table(np.asarray(token_ids, np.int64)[:, None])
        return self._decoder.feed(embeds + self._rows.popleft(), np.ones(1, np.int64))

    def reorder(self, rows: np.ndarray) -> None:
        """See `steps.Decoder`; there is one row."""


def endless(options: Options, given: dict[str, Any]) -> Options:
    """The options with no length but one that was asked for: a checkpoint's is a clip's."""
    if given.get("max_new_tokens") or given.get("max_length"):
        return options
    return replace(options, max_new_tokens=ENDLESS, max_length=None)


def checked(samples: np.ndarray | Sequence[float]) -> np.ndarray:
    pcm = np.asarray(samples)
    if pcm.ndim != 1 or pcm.dtype.kind != "f" and len(pcm):
        raise BadAudio(
            f"samples of a live run are one row of floats, not {pcm.dtype} {list(pcm.shape)}"
        )
    pcm = pcm.astype(np.float32, copy=False)
    if not np.isfinite(pcm).all():
        raise BadAudio("a sample is not a finite number")
    return pcm
