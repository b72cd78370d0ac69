"""Beam search finds the tokens and scores of transformers' beam search, drawn beams its chances."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from transformers import GenerationConfig

from alm.decoding.options import Options
from tests.runtime.decoding import tiny_lm
from tests.runtime.decoding.tiny_lm import EOS, ours, reason, theirs


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    with tiny_lm.one_thread():
        yield


@pytest.mark.parametrize("early", [False, True, "never"])
@pytest.mark.parametrize("beams", [2, 3, 4, 5])
def test_the_search_ends_where_transformers_ends_it(beams: int, early: Any) -> None:
    ended = 0
    for seed, penalty in itertools.product(range(3), [-2.0, 0.0, 1.0, 2.0]):
        prompts = (tiny_lm.ids, tiny_lm.embeddings)[seed % 2](seed + beams, 1)
        options = Options(
            max_new_tokens=12, num_beams=beams, length_penalty=penalty, early_stopping=early
        )
        eos = EOS[(seed + beams) % 3]
        rows, scores = theirs(seed, prompts, options, eos)
        answers = ours(seed, prompts, options, eos)
        assert [answer.token_ids for answer in answers] == rows, (seed, options)
        assert [answer.score for answer in answers] == pytest.approx(scores, rel=1e-4)
        assert [answer.stop_reason for answer in answers] == [reason(row, eos) for row in rows]
        ended += answers[0].stop_reason == "eos"
    assert ended  # or the comparison says little


def test_penalties_and_least_lengths_hold_in_every_beam() -> None:
    for case, penalty in enumerate([0.6, -1.0, 2.0] * 3):
        eos = EOS[case % 3]
        options = Options(
            max_new_tokens=(14, 9)[case % 2],
            num_beams=2 + case % 4,
            length_penalty=penalty,
            repetition_penalty=(1.0, 1.2, 0.8)[case % 3],
            min_new_tokens=(0, 3)[case // 2 % 2],
        )
        prompts = tiny_lm.embeddings(case, 2)
        rows, _ = theirs(case % 7, prompts, options, eos)
        assert [answer.token_ids for answer in ours(case % 7, prompts, options, eos)] == rows


def test_drawn_beams_come_as_often_as_those_of_transformers() -> None:
    draws, prompt = 1500, tiny_lm.ids(0, 1)
    options = Options(
        max_new_tokens=2, num_beams=2, do_sample=True, top_k=6, temperature=2.0, early_stopping=True
    )
    torch.manual_seed(0)
    many = prompt.expand(draws, -1)
    found = tiny_lm.language_model(0).generate(
        input_ids=many,
        attention_mask=torch.ones_like(many),
        generation_config=GenerationConfig(**tiny_lm.config(options, EOS[0])),
    )
    wanted = Counter(map(tuple, found[:, prompt.shape[1] :].tolist()))
    got: Counter[tuple[int, ...]] = Counter()
    decoder = tiny_lm.Torch(0, prompt)
    second: dict[int, np.ndarray] = {}
    for seed in range(draws):
        got[_drawn(decoder, second, options, seed)] += 1
    distance = sum(abs(wanted[each] - got[each]) for each in wanted | got) / (2 * draws)
    assert distance < 0.1, (wanted, got)  # of two samples of 1500 it is about 0.05


def _drawn(
    first: tiny_lm.Torch, second: dict[int, np.ndarray], options: Options, seed: int
) -> tuple[int, ...]:
    """One answer of two tokens; the logits after each first token are computed once."""
    from dataclasses import replace

    class Known:
        def step(self, token_ids: np.ndarray) -> np.ndarray:
            for token in set(token_ids.tolist()) - second.keys():
                whole = torch.cat([tiny_lm.ids(0, 1), torch.tensor([[token]])], 1)
                second[token] = tiny_lm.Torch(0, whole).logits[0]
            return np.stack([second[token] for token in token_ids.tolist()])

        def reorder(self, rows: np.ndarray) -> None:
            pass

    seeded = replace(options, seed=seed)
    (answer,) = tiny_lm.answers(first.logits, Known(), seeded, eos_ids=EOS[0])
    return tuple((answer.token_ids + [tiny_lm.PAD])[:2])
