"""Beam search: hypotheses of a row grow side by side, and the best finished one is the answer.

The same sequences as transformers 5 (`GenerationMixin._beam_search`), without its padded tensors
and its -1e9 for "not there": what ended leaves the batch, a hypothesis or a whole row.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from alm.decoding import logit_arrays
from alm.decoding.rules import Rules
from alm.decoding.steps import Decoder, Sequence, Step, StopReason

NOT_THERE = -1e38  # a score that `remove_invalid_values` gave to what is forbidden, or -inf


class Hypothesis(NamedTuple):
    """New tokens, their score, and why they end (None while they go on).

    The score is the sum of log probabilities while it grows, and that sum over
    length ** length_penalty once it is finished.
    """

    token_ids: list[int]
    score: np.float32
    stop_reason: StopReason | None = None


class Row:
    """The search of one prompt row."""

    def __init__(self, row: int, rules: Rules, random: np.random.Generator) -> None:
        self.row, self.rules, self.random = row, rules, random
        self.beams = [Hypothesis([], np.float32(0))]  # one until the first step: all would be equal
        self.finished: list[Hypothesis] = []  # the best `num_beams`, best first
        self.done = False

    def advance(self, log_probs: np.ndarray) -> list[int]:
        """Take a step with processed log_probs [beams, vocab]; gives each new beam's parent."""
        width = self.rules.options.num_beams
        sums = log_probs + np.array([beam.score for beam in self.beams], np.float32)[:, None]
        places = self._continuations(sums.ravel())
        beams: list[Hypothesis] = []
        parents: list[int] = []
        for rank, place in enumerate(places):
            parent, token = divmod(int(place), log_probs.shape[1])
            token_ids = [*self.beams[parent].token_ids, token]
            score = sums[parent, token]
            reason = self.rules.end(self.row, token_ids)
            if reason is None:
                beams.append(Hypothesis(token_ids, score))
                parents.append(parent)
            elif rank < width:  # what lies lower is there only to keep the beams filled
                score = self.rules.average(score, len(token_ids))
                self.finished.append(Hypothesis(token_ids, score, reason))
        self.beams = beams[:width]
        self.finished = sorted(self.finished, key=self._rank)[:width]
        self.done = not self._may_improve()
        return parents[:width]

    def answer(self) -> Sequence:
        """The best finished hypothesis.

        Raises:
            BadOption: there is none, since the options forbid every token.
        """
        if not self.finished:
            raise logit_arrays.nothing_left()
        best = self.finished[0]
        return Sequence(best.token_ids, best.stop_reason or "length", float(best.score))

    def _rank(self, hypothesis: Hypothesis) -> tuple[bool, float]:
        """Where a finished hypothesis stands; one that a grammar saw cut, behind all others."""
        cut = self.rules.grammar is not None and hypothesis.stop_reason == "length"
        return cut, -float(hypothesis.score)

    def _continuations(self, sums: np.ndarray) -> np.ndarray:
        """The places of sums [beams * vocab] to look at, best first; what is forbidden is none."""
        count = self.rules.candidates
        if self.rules.options.do_sample:
            return logit_arrays.draw_several(sums, count, self.random)
        places = logit_arrays.best(sums, count)
        return places[sums[places] > NOT_THERE]

    def _may_improve(self) -> bool:
        """Whether another step could bring a better answer; see transformers' PR 20901."""
        options = self.rules.options
        if not self.beams:
            return False
        if len(self.finished) < options.num_beams:
            return True
        if options.early_stopping is True:
            return False
        length = len(self.beams[0].token_ids)
        if options.early_stopping == "never" and options.length_penalty > 0:
            length = self.rules.most(self.row)  # the length that would flatter the beam most
        return bool(self.rules.average(self.beams[0].score, length) > self.finished[-1].score)


def search(logits: np.ndarray, decoder: Decoder, rules: Rules) -> Iterator[Step]:
    """Steps of all rows until each has its best finished hypothesis.

    Args:
        logits: float32 [rows, vocab] of the last position of each prompt.
        decoder: its cache holds the prompts, one a row; it is widened here.
        rules: options, EOS ids and stop callback.

    Raises:
        BadArtifacts: logits that are not numbers.
        BadOption: the options forbid every token.
    """
    live = [Row(row, rules, random) for row, random in enumerate(rules.generators())]
    decoder_ms: float | None = None
    while live:
        beams = [beam for row in live for beam in row.beams]
        log_probs = rules.scores(
            logit_arrays.log_softmax(rules.checked(logits, len(beams))),
            [(row.row, beam.token_ids) for row in live for beam in row.beams],
        )
        sources = _advance(live, log_probs)
        yield Step({}, {row.row: row.answer() for row in live if row.done}, decoder_ms)
        live = [row for row in live if not row.done]
        if live:
            start = time.perf_counter()
            if sources != list(range(len(beams))):
                decoder.reorder(np.array(sources, np.int64))
            tokens = [beam.token_ids[-1] for row in live for beam in row.beams]
            logits = decoder.step(np.array(tokens, np.int64))
            decoder_ms = (time.perf_counter() - start) * 1e3


def _advance(rows: list[Row], log_probs: np.ndarray) -> list[int]:
    """Advance every row by its share of log_probs; gives the cache rows to go on from."""
    sources: list[int] = []
    start = 0
    for row in rows:
        stop = start + len(row.beams)
        parents = row.advance(log_probs[start:stop])
        if not row.done:
            sources += [start + parent for parent in parents]
        start = stop
    return sources
