"""From logits to tokens, greedy, sampled or by beams, as transformers' `generate` does it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence, Set

import numpy as np

from alm.decoding import beam_search, logit_arrays, steps
from alm.decoding.options import Options
from alm.decoding.processors import Processors, Prompt
from alm.decoding.rules import Rules
from alm.decoding.steps import Decoder, Grammar, Step


def decode(
    logits: np.ndarray,
    decoder: Decoder,
    options: Options,
    *,
    eos_ids: Set[int],
    stopped: Callable[[int, list[int]], bool] | None = None,
    prompts: Sequence[Sequence[int]] = (),
    lengths: Sequence[int] = (),
    grammar: Grammar | None = None,
) -> Iterator[Step]:
    """Continue every prompt row, step by step; each answer is the one the row would get alone.

    The same tokens as transformers 5.24 gives for the row alone. A sampled row has random numbers
    of its own, from the seed: a row of a batch draws what it draws alone.

    Nothing is computed before the first step is asked for, nor after the last that is: whoever
    leaves the steps half-way ends the search.

    Args:
        logits: float32 [rows, vocab] of the last position of each prompt.
        decoder: its cache holds the prompts, one a row; rows that are done leave it.
        options: what to do.
        eos_ids: the tokens that end an answer; may be empty.
        stopped: called with (row, new tokens so far) after each token but an EOS; True ends the
            row, or with beams that one hypothesis of it.
        prompts: the token ids of each prompt, placeholders of its audio included, where penalties
            and n-grams are to see them, as from `generate(input_ids=...)`; without, they see only
            new tokens, as from `generate(inputs_embeds=...)`.
        lengths: the positions of each prompt, which `min_length` and `max_length` count; without,
            the lengths of `prompts`.
        grammar: what answers must follow: other tokens are forbidden after all processors, and
            before sampling leaves any out.

    Yields:
        A step for each pass of the decoder, the prompt's first. Every row ends in one of them.

    Raises:
        BadArtifacts: logits that are not finite numbers, or not of one row per prompt.
        BadOption: options with a token that is not in the vocabulary, or that forbid all of them or
            all that the grammar lets follow.
        BadPrompt: `max_length` leaves no room for an answer.
    """
    logits = np.asarray(logits)
    options.check_tokens(logits.shape[-1])
    rules = Rules(
        options,
        frozenset(eos_ids),
        stopped,
        [_prompt(prompts, lengths, row) for row in range(len(logits))],
        Processors(options, eos_ids, grammar),
        grammar,
    )
    if options.num_beams > 1:
        return beam_search.search(logits, decoder, rules)
    return _one_by_one(logits, decoder, rules)


def _prompt(prompts: Sequence[Sequence[int]], lengths: Sequence[int], row: int) -> Prompt:
    ids = np.asarray(prompts[row] if prompts else (), np.int64)
    return Prompt(int(lengths[row]) if len(lengths) else len(ids), ids)


def _one_by_one(logits: np.ndarray, decoder: Decoder, rules: Rules) -> Iterator[Step]:
    """Greedy decoding and sampling: every row takes one token a step until it ends."""
    answers: list[list[int]] = [[] for _ in logits]
    sampled, random = rules.options.do_sample, rules.generators()
    live = list(range(len(logits)))
    decoder_ms: float | None = None
    while live:
        scores = rules.scores(rules.checked(logits, len(live)), [(r, answers[r]) for r in live])
        kept: list[int] = []
        tokens: dict[int, int] = {}
        ended: dict[int, steps.Sequence] = {}
        for place, row in enumerate(live):
            row_scores, answer = scores[place], answers[row]
            if sampled:
                token = logit_arrays.draw(row_scores, random[row])
            else:
                token = logit_arrays.likeliest(row_scores)
            answer.append(token)
            tokens[row] = token
            reason = rules.end(row, answer)
            if reason is None:
                kept.append(place)
            else:
                ended[row] = steps.Sequence(answer, reason)
        yield Step(tokens, ended, decoder_ms)
        start = time.perf_counter()
        if kept and len(kept) < len(live):  # a row that is done costs nothing from here on
            decoder.reorder(np.array(kept, np.int64))
        live = [live[place] for place in kept]
        if live:
            logits = decoder.step(np.array([answers[row][-1] for row in live], np.int64))
            decoder_ms = (time.perf_counter() - start) * 1e3
