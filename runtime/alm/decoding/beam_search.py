"""Beam search: hypotheses of a row grow side by side, and the best finished one is the answer.

The same sequences as transformers 5 (`GenerationMixin._beam_search`), without its padded tensors
and its -1e9 for "not there": what ended leaves the batch, a hypothesis or a whole row.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from alm.decoding import logit_arrays
from alm.decoding.processors import History, Processors, Prompt

if TYPE_CHECKING:  # decoding imports this file
    from alm.decoding.options import Options
    from alm.decoding.search import Decoder, StopReason


NOT_THERE = -1e38  # a score that `remove_invalid_values` gave to what is forbidden, or -inf


class Hypothesis(NamedTuple):
    """New tokens, their score, and why they end (None while they go on).

    The score is the sum of log probabilities while it grows, and that sum over
    length ** length_penalty once it is finished.
    """

    token_ids: list[int]
    score: np.float32
    stop_reason: StopReason | None = None


@dataclass(frozen=True)
class Rules:
    """What all rows of one search share."""

    options: Options
    eos_ids: frozenset[int]
    stopped: Callable[[int, list[int]], bool] | None
    prompts: Sequence[Prompt]  # of each row
    processors: Processors

    def checked(self, logits: np.ndarray, rows: int) -> np.ndarray:
        """See `_scores.checked`; what `remove_invalid_values` is for is let through."""
        return logit_arrays.checked(logits, rows, not self.options.remove_invalid_values)

    def scores(self, scores: np.ndarray, pasts: Sequence[tuple[int, Sequence[int]]]) -> np.ndarray:
        """Processed scores [n, vocab]; `pasts` are the prompt row and the new tokens of each."""
        return self.processors(scores, [History(self.prompts[row], new) for row, new in pasts])

    @property
    def candidates(self) -> int:
        """How many continuations of a row are looked at in a step.

        Enough that `num_beams` go on even when every beam's likeliest tokens are all the EOS.
        """
        return max(2, 1 + len(self.eos_ids)) * self.options.num_beams

    def end(self, row: int, token_ids: list[int]) -> StopReason | None:
        """Why these tokens of prompt row `row` end here, if they do."""
        if token_ids[-1] in self.eos_ids:
            return "eos"
        if self.stopped is not None and self.stopped(row, token_ids):
            return "stop_string"
        return "length" if len(token_ids) >= self.most(row) else None

    def most(self, row: int) -> int:
        """New tokens of an answer to prompt row `row`, at most."""
        return self.options.most(self.prompts[row].length)

    def average(self, score: np.float32, length: int) -> np.float32:
        """A sum of log probabilities, weighed against its length in tokens."""
        return score / np.float32(length**self.options.length_penalty)


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
        self.finished = sorted(self.finished, key=lambda found: -found.score)[:width]
        self.done = not self._may_improve()
        return parents[:width]

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


def search(logits: np.ndarray, decoder: Decoder, rules: Rules) -> list[Hypothesis]:
    """The best finished hypothesis of every prompt row.

    Args:
        logits: float32 [rows, vocab] of the last position of each prompt.
        decoder: its cache holds the prompts, one a row; it is widened here.
        rules: options, EOS ids and stop callback.

    Raises:
        BadArtifacts: logits that are not numbers.
    """
    random = dice(rules.options.seed, len(logits))
    rows = [Row(row, rules, random[row]) for row in range(len(logits))]
    live = rows
    while live:
        beams = [beam for row in live for beam in row.beams]
        log_probs = rules.scores(
            logit_arrays.log_softmax(rules.checked(logits, len(beams))),
            [(row.row, beam.token_ids) for row in live for beam in row.beams],
        )
        sources = _advance(live, log_probs)
        live = [row for row in live if not row.done]
        if live:
            if sources != list(range(len(beams))):
                decoder.reorder(np.array(sources, np.int64))
            tokens = [beam.token_ids[-1] for row in live for beam in row.beams]
            logits = decoder.step(np.array(tokens, np.int64))
    if not all(row.finished for row in rows):
        raise logit_arrays.nothing_left()
    return [row.finished[0] for row in rows]


def dice(seed: int | None, rows: int) -> list[np.random.Generator]:
    """A generator for each row, so that a row draws in a batch what it draws alone."""
    return [np.random.default_rng(seed) for _ in range(rows)]


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
