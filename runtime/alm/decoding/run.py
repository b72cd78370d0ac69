"""A prompt fed and the search after it: text as it becomes certain, every stage timed."""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence, Set
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from alm.decoding import search, steps
from alm.decoding.options import Options
from alm.text.detokenizer import Joiner, Stops
from alm.text.reading import ReadingStream
from alm.timings import Times


class Fed(steps.Decoder, Protocol):
    """A decoder that a prompt is given before it steps."""

    def feed(self, embeds: np.ndarray, lengths: np.ndarray) -> np.ndarray: ...


@dataclass(frozen=True)
class Run:
    """How prompts are answered, and who counts the time."""

    options: Options
    eos: Set[int]
    stops: Stops
    times: Times
    grammar: steps.Grammar | None = None

    def answers(
        self,
        decoder: Fed,
        embeds: np.ndarray,
        lengths: np.ndarray,
        whole: Sequence[int],
        prompts: Sequence[Sequence[int]],
        stream: ReadingStream,
        joiner: Joiner | None,
    ) -> Generator[str, None, tuple[list[steps.Sequence], list[str]]]:
        """Prefill and decode; yields text as it comes, gives each row's answer and its text.

        Args:
            decoder: with room for the answers.
            embeds: float32 [rows, seq, hidden], what is new of the prompts.
            lengths: int64 [rows], how much of it is real.
            whole: positions of each prompt, with what the cache held before.
            prompts: ids before the answers, of models that are given them.
            stream: makes text of the one row that is yielded.
            joiner: joins its pieces; None yields nothing.
        """
        times, stops = self.times, self.stops
        start = time.perf_counter()
        logits = decoder.feed(embeds, lengths)
        times.add("prefill", start)
        for stage in ("steps", "choose", "detokenise"):  # the order in which they are shown
            times.add_ms(stage, 0.0)
        ended: dict[int, steps.Sequence] = {}
        start = time.perf_counter()
        for step in search.decode(
            logits,
            decoder,
            self.options,
            eos_ids=self.eos,
            stopped=self._stopped if stops.strings else None,
            prompts=prompts,
            lengths=whole,
            grammar=self.grammar,
        ):
            times.chose(step.decoder_ms, start)
            ended.update(step.ended)
            if joiner and step.tokens:
                start = time.perf_counter()
                piece = joiner.push(stream.push(step.tokens[0]))
                times.add("detokenise", start)
                if piece:
                    yield piece
            start = time.perf_counter()
        sequences = [ended[row] for row in range(len(lengths))]
        texts = [stops.cut(sequence.token_ids) for sequence in sequences]
        times.add("detokenise", start)
        if joiner:
            rest = stream.finish(texts[0] if self.options.num_beams > 1 else None)
            if piece := joiner.push(rest):
                yield piece
            joiner.end()
        return sequences, texts

    def _stopped(self, _: int, ids: list[int]) -> bool:
        """Whether an answer has reached a string that ends it."""
        since = time.perf_counter()
        reached = self.stops.reached(ids)
        ms = (time.perf_counter() - since) * 1e3
        self.times.add_ms("detokenise", ms)
        self.times.add_ms("choose", -ms)  # the step that it belongs to counts it too
        return reached
