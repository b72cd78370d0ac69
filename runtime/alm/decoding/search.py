"""From logits to tokens, greedy, sampled or by beams, as transformers' `generate` does it."""

from __future__ import annotations

from collections.abc import Callable, Set
from collections.abc import Sequence as Sequence_
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np

from alm.decoding import beam_search, logit_arrays
from alm.decoding.options import Options, choose
from alm.decoding.processors import Processors, Prompt

__all__ = ["Decoder", "Options", "Sequence", "StopReason", "choose", "generate"]

StopReason = Literal["eos", "stop_string", "length"]


class Decoder(Protocol):
    """A language model with a cache, one row a sequence."""

    def step(self, token_ids: np.ndarray) -> np.ndarray:
        """Feed one token to every row, int64 [rows]; gives logits, float32 [rows, vocab]."""
        ...

    def reorder(self, rows: np.ndarray) -> None:
        """Make row i of the cache a copy of what was row rows[i]; rows may become more or fewer."""
        ...


@dataclass(frozen=True)
class Sequence:
    """An answer: the new tokens (the EOS too, if there is one), why they end, a beam's score."""

    token_ids: list[int]
    stop_reason: StopReason
    score: float | None = None  # sum of log probabilities / length ** length_penalty; beams only


def generate(
    logits: np.ndarray,
    decoder: Decoder,
    options: Options,
    *,
    eos_ids: Set[int],
    stopped: Callable[[int, list[int]], bool] | None = None,
    on_token: Callable[[int, int], None] | None = None,
    prompts: Sequence_[Sequence_[int]] = (),
    lengths: Sequence_[int] = (),
) -> list[Sequence]:
    """Continue every prompt row; each answer is the one that the row would get alone.

    The same tokens as transformers 5.24 gives for the row alone. A sampled row has random numbers
    of its own, from the seed: a row of a batch draws what it draws alone.

    Args:
        logits: float32 [rows, vocab] of the last position of each prompt.
        decoder: its cache holds the prompts, one a row; rows that are done leave it.
        options: what to do.
        eos_ids: the tokens that end an answer; may be empty.
        stopped: asked (row, new tokens so far) after each token but an EOS; True ends the row, or
            with beams that one hypothesis of it.
        on_token: told (row, token) of every token when it is chosen, the EOS too; not with beams,
            where no token is certain before the end.
        prompts: the token ids of each prompt, placeholders of its audio included, where penalties
            and n-grams are to see them, as from `generate(input_ids=...)`; without, they see only
            new tokens, as from `generate(inputs_embeds=...)`.
        lengths: the positions of each prompt, which `min_length` and `max_length` count; without,
            the lengths of `prompts`.

    Raises:
        BadArtifacts: logits that are not finite numbers, or not of one row per prompt.
        BadOption: options with a token that is not in the vocabulary, or that forbid all of them.
        BadPrompt: `max_length` leaves no room for an answer.
    """
    logits = np.asarray(logits)
    options.check_tokens(logits.shape[-1])
    rules = beam_search.Rules(
        options,
        frozenset(eos_ids),
        stopped,
        [_prompt(prompts, lengths, row) for row in range(len(logits))],
        Processors(options, eos_ids),
    )
    if options.num_beams > 1:
        found = beam_search.search(logits, decoder, rules)
        return [
            Sequence(best.token_ids, best.stop_reason or "length", float(best.score))
            for best in found
        ]
    return _one_by_one(logits, decoder, rules, on_token)


def _prompt(prompts: Sequence_[Sequence_[int]], lengths: Sequence_[int], row: int) -> Prompt:
    ids = np.asarray(prompts[row] if prompts else (), np.int64)
    return Prompt(int(lengths[row]) if len(lengths) else len(ids), ids)


def _one_by_one(
    logits: np.ndarray,
    decoder: Decoder,
    rules: beam_search.Rules,
    on_token: Callable[[int, int], None] | None,
) -> list[Sequence]:
    """Greedy decoding and sampling: every row takes one token a step until it ends."""
    answers: list[list[int]] = [[] for _ in logits]
    reasons: dict[int, StopReason] = {}
    sampled = rules.options.do_sample
    dice = beam_search.dice(rules.options.seed, len(logits))
    live = list(range(len(logits)))
    while live:
        scores = rules.scores(rules.checked(logits, len(live)), [(r, answers[r]) for r in live])
        kept: list[int] = []
        for place, row in enumerate(live):
            each = scores[place]
            token = logit_arrays.draw(each, dice[row]) if sampled else logit_arrays.likeliest(each)
            answers[row].append(token)
            if on_token is not None:
                on_token(row, token)
            reason = rules.end(row, answers[row])
            if reason is None:
                kept.append(place)
            else:
                reasons[row] = reason
        if kept and len(kept) < len(live):  # a row that is done costs nothing from here on
            decoder.reorder(np.array(kept, np.int64))
        live = [live[place] for place in kept]
        if live:
            logits = decoder.step(np.array([answers[row][-1] for row in live], np.int64))
    return [Sequence(answer, reasons[row]) for row, answer in enumerate(answers)]
