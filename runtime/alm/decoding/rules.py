"""What all rows of one search share: the options, the prompts, and where an answer ends."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from alm.decoding import logit_arrays
from alm.decoding.options import Options
from alm.decoding.processors import History, Processors, Prompt
from alm.decoding.steps import Grammar, StopReason


@dataclass(frozen=True)
class Rules:
    """What all rows of one search share."""

    options: Options
    eos_ids: frozenset[int]
    stopped: Callable[[int, list[int]], bool] | None
    prompts: Sequence[Prompt]  # of each row
    processors: Processors
    grammar: Grammar | None = None  # what answers must follow

    def checked(self, logits: np.ndarray, rows: int) -> np.ndarray:
        """See `logit_arrays.checked`; what `remove_invalid_values` is for is let through."""
        return logit_arrays.checked(logits, rows, not self.options.remove_invalid_values)

    def scores(self, scores: np.ndarray, pasts: Sequence[tuple[int, Sequence[int]]]) -> np.ndarray:
        """Processed scores [n, vocab]; `pasts` are the prompt row and the new tokens of each."""
        return self.processors(scores, [History(self.prompts[row], new, row) for row, new in pasts])

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
        if self.grammar is not None and self.grammar.complete(row, token_ids):
            # Until there are enough tokens the end is forbidden, and the grammar says so.
            least = self.options.least(self.prompts[row].length)
            return "grammar" if len(token_ids) >= least else None
        return "length" if len(token_ids) >= self.most(row) else None

    def most(self, row: int) -> int:
        """New tokens of an answer to prompt row `row`, at most."""
        return self.options.most(self.prompts[row].length)

    def average(self, score: np.float32, length: int) -> np.float32:
        """A sum of log probabilities, weighed against its length in tokens."""
        return score / np.float32(length**self.options.length_penalty)

    def generators(self) -> list[np.random.Generator]:
        """One for each row, so that a row draws in a batch what it draws alone."""
        return [np.random.default_rng(self.options.seed) for _ in self.prompts]
