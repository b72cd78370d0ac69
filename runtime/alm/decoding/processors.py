"""What changes a decoder's scores before a token is chosen, as transformers' `generate` does it.

Order and float32 arithmetic are those of `GenerationMixin._get_logits_processor` and
`generation/logits_process.py` of transformers 5.24. What a processor sees of a prompt is what
`generate` was given there: token ids, or with embeddings alone only what is new.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from alm.decoding import logit_arrays
from alm.decoding.warpers import warpers
from alm.decoding.watermark import green

if TYPE_CHECKING:
    from alm.decoding.options import Ids, Options
    from alm.decoding.steps import Grammar

NO = np.float32(-np.inf)
LARGEST = np.finfo(np.float32).max


@dataclass(frozen=True)
class Prompt:
    """A row's prompt: its length in positions, and its token ids where processors see them."""

    length: int = 0
    ids: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))

    @cached_property
    def distinct(self) -> np.ndarray:
        """Its different ids, sorted."""
        return np.unique(self.ids)


@dataclass(frozen=True)
class History:
    """A prompt, and the new tokens after it."""

    prompt: Prompt
    new: Sequence[int]
    row: int = 0  # of the prompt

    @cached_property
    def ids(self) -> np.ndarray:
        """All ids that processors see, int64 [n]."""
        return np.concatenate([self.prompt.ids, np.asarray(self.new, np.int64)])

    def ends_with(self, ids: Ids) -> bool:
        """Whether the last of the ids are these."""
        if len(ids) <= len(self.new):
            return tuple(self.new[len(self.new) - len(ids) :]) == ids
        return len(ids) <= len(self.ids) and tuple(self.ids[-len(ids) :].tolist()) == ids


Processor = Callable[[np.ndarray, History], None]  # scores [vocab] are changed in place


class Processors:
    """All processors that `options` turn on, in the order of transformers."""

    def __init__(
        self, options: Options, eos_ids: Iterable[int], grammar: Grammar | None = None
    ) -> None:
        self.options, self.grammar = options, grammar
        self.eos = np.array(sorted(eos_ids), np.int64)
        self.steps: list[Processor] = list(self._steps())
        # With beams one token that is no EOS stays, so that a beam can go on.
        keep = 1 if options.num_beams == 1 else max(2, len(self.eos) + 1)
        self.warpers = warpers(options, keep) if options.do_sample else []
        mark = options.watermarking_config
        self.watermark = None if mark is None else dict(mark)

    def __call__(self, scores: np.ndarray, histories: Sequence[History]) -> np.ndarray:
        """Scores [rows, vocab] after all processors; those given stay as they were.

        Args:
            scores: logits, or log probabilities of beams; float32 [rows, vocab].
            histories: what came before, row by row.
        """
        marked, normed = self.watermark is not None, self.options.renormalize_logits
        if self.steps or self.warpers or marked or self.grammar:
            scores = scores.copy()
            with np.errstate(over="ignore", invalid="ignore"):
                for row, history in zip(scores, histories, strict=True):
                    self._process(row, history)
        return logit_arrays.log_softmax(scores) if normed else scores

    def _process(self, row: np.ndarray, history: History) -> None:
        for step in self.steps:
            step(row, history)
        if self.grammar:  # what sampling leaves out is a share of what may follow
            self.grammar.restrict(history.row, history.new, row)
        if self.warpers and row.max() == NO:
            if self.grammar and self.options.num_beams > 1:
                return  # other beams go on
            raise logit_arrays.nothing_left()
        warped = row
        for warper in self.warpers:
            warped = warper(warped)
        row[:] = warped
        if self.watermark is not None and len(history.ids) >= self.watermark["context_width"]:
            row[green(int(history.ids[-1]), len(row), self.watermark)] += np.float32(
                self.watermark["bias"]
            )

    def _repeated(self, past: History) -> np.ndarray:
        """The ids that `repetition_penalty` sees.

        With a window those of so many last new tokens, and none before there are more, as in
        Kimi-Audio's own loop.
        """
        window = self.options.repetition_window
        if not window:
            return np.union1d(past.prompt.distinct, past.new)
        seen = past.new[-window:] if len(past.new) > window else ()
        return np.unique(np.asarray(seen, np.int64))

    def _steps(self) -> Iterable[Processor]:
        o = self.options
        if o.sequence_bias:
            yield self._bias(o.sequence_bias)
        if o.encoder_repetition_penalty != 1:
            factor = 1 / o.encoder_repetition_penalty
            yield lambda row, past: _penalize(row, past.prompt.distinct, factor)
        if o.repetition_penalty != 1:
            yield lambda row, past: _penalize(row, self._repeated(past), o.repetition_penalty)
        if size := o.no_repeat_ngram_size:
            yield lambda row, past: _forbid(row, _after(past.ids, past.ids, size))
        if n := o.encoder_no_repeat_ngram_size:
            yield lambda row, past: _forbid(row, _after(past.prompt.ids, past.ids, n))
        ends = {(int(token),) for token in self.eos}
        if words := [(ids, -np.inf) for ids in o.bad_words_ids if ids not in ends]:
            yield self._bias(words)
        if o.min_length or o.min_new_tokens:
            yield self._least
        if (token := o.forced_bos_token_id) is not None:
            yield lambda row, past: _force(row, (token,), len(past.ids) == 1)
        if o.forced_ends:
            yield lambda row, past: _force(
                row, o.forced_ends, len(past.new) == o.most(past.prompt.length) - 1
            )
        if o.remove_invalid_values:
            yield lambda row, _: np.copyto(row, np.nan_to_num(row, nan=0))
        if o.exponential_decay_length_penalty is not None:
            yield self._decay
        if o.suppress_tokens:
            suppressed = np.array(o.suppress_tokens)  # may be thousands: made once
            yield lambda row, _: _forbid(row, suppressed)
        if o.begin_suppress_tokens:
            yield self._begin

    @staticmethod
    def _bias(biases: Iterable[tuple[Ids, float]]) -> Processor:
        """Add a bias to the last token of each sequence where the ones before it have come."""
        single = {ids[0]: bias for ids, bias in biases if len(ids) == 1}
        alone, amounts = np.array([*single], np.int64), np.array([*single.values()], np.float32)
        longer = [(ids[:-1], ids[-1], np.float32(bias)) for ids, bias in biases if len(ids) > 1]
        longer.sort(key=lambda biased: len(biased[0]))  # the order in which transformers adds them

        def process(row: np.ndarray, past: History) -> None:
            sums = np.zeros_like(row)
            sums[alone] = amounts
            for before, token, amount in longer:
                if past.ends_with(before):
                    sums[token] += amount
            row += sums

        return process

    def _least(self, row: np.ndarray, past: History) -> None:
        if len(past.new) < self.options.least(past.prompt.length):
            _forbid(row, self.eos)

    def _decay(self, row: np.ndarray, past: History) -> None:
        """Raise the EOS exponentially from a length on."""
        assert self.options.exponential_decay_length_penalty is not None
        start, factor = self.options.exponential_decay_length_penalty
        if (over := len(past.new) - start) <= 0:
            return
        eos = self.eos[self.eos < len(row)]
        scores = row[eos]
        raised = np.float32(min(np.float64(factor) ** over, LARGEST) - 1)
        penalty = np.where(np.isfinite(scores), np.abs(scores) * raised, np.float32(0))
        row[eos] = np.minimum(scores + penalty, LARGEST)

    def _begin(self, row: np.ndarray, past: History) -> None:
        ids = past.prompt.ids
        late = len(ids) <= 1 and self.options.forced_bos_token_id is not None
        if len(past.new) == late:
            _forbid(row, np.array(self.options.begin_suppress_tokens))


def _forbid(row: np.ndarray, tokens: np.ndarray) -> None:
    row[tokens[tokens < len(row)]] = NO


def _force(row: np.ndarray, tokens: Ids, now: bool) -> None:
    if now:
        row[:] = NO
        row[list(tokens)] = 0


def _penalize(row: np.ndarray, tokens: np.ndarray, penalty: float) -> None:
    """The penalty of CTRL (Keskar et al. 2019, section 4.1) as transformers has it.

    A score above zero is divided by it, one below is multiplied.
    """
    tokens = tokens[tokens < len(row)].astype(np.int64)
    scores, factor = row[tokens], np.float32(penalty)
    row[tokens] = np.where(scores < 0, scores * factor, scores / factor)


def _after(text: np.ndarray, ids: np.ndarray, size: int) -> np.ndarray:
    """The tokens that would make the last of `ids` an n-gram of `size` that `text` has."""
    if len(text) < size or len(ids) < size - 1:
        return np.zeros(0, np.int64)
    windows = np.lib.stride_tricks.sliding_window_view(text, size)
    last = ids[len(ids) + 1 - size :]
    return windows[(windows[:, :-1] == last).all(axis=1), -1]
