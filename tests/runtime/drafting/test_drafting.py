"""Drafts change when a token is computed, never which one it is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest

from alm.decoding.options import Options
from alm.decoding.steps import Sequence as Answer
from alm.drafting.gain import REST, WATCHED, Gain
from alm.drafting.ngrams import Ngrams
from alm.drafting.verified import Drafter, Verified
from tests.runtime.decoding.tiny_lm import answers

EOS = frozenset({0})


class Language:
    """A decoder whose logits follow from the last tokens, so that answers come back to themselves.

    Its cache is the tokens that it was fed; what was taken back is gone.
    """

    def __init__(self, seed: int, vocab: int, memory: int, room: int) -> None:
        self.seed, self.vocab, self.memory, self.room = seed, vocab, memory, room
        self.cache: list[int] = []
        self.lengths = np.zeros(1, np.int64)
        self.calls: list[int] = []

    def feed(self, embeds: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        return self.steps([int(token) for token in embeds[0]])[-1:]

    def step(self, token_ids: np.ndarray) -> np.ndarray:
        return self.steps([int(token_ids[0])])

    def steps(self, token_ids: Sequence[int]) -> np.ndarray:
        self.calls.append(len(token_ids))
        rows = []
        for token in token_ids:
            self.cache.append(token)
            assert 0 <= token < self.vocab and len(self.cache) <= self.room
            known = [self.seed, *self.cache[-self.memory :]]
            rows.append(np.random.default_rng(known).standard_normal(self.vocab))
        self.lengths = np.array([len(self.cache)])
        return np.array(rows, np.float32)

    def back(self, length: int) -> None:
        assert length <= len(self.cache)
        del self.cache[length:]
        self.lengths = np.array([length])

    def reorder(self, rows: np.ndarray) -> None:
        raise AssertionError("one row stays where it is")


class Guess:
    """Guesses what will be said, and is right so often."""

    def __init__(self, answer: Sequence[int], right: float, vocab: int, dice: Any) -> None:
        self.answer, self.right, self.vocab, self.dice = answer, right, vocab, dice

    def propose(self, ids: Sequence[int], most: int) -> list[int]:
        said = list(self.answer[len(ids) : len(ids) + most])
        return [
            t if self.dice.random() < self.right else int(self.dice.integers(self.vocab))
            for t in said
        ]


def ticking(dice: Any) -> Iterator[float]:
    """A clock by which some calls are slow, so that drafts rest now and then."""
    now = 0.0
    while True:
        now += float(dice.exponential())
        yield now


def said(decoder: Any, prompt: list[int], options: Options) -> Answer:
    logits = decoder.feed(np.array([prompt]), np.array([len(prompt)]))
    return answers(logits, decoder, options, eos_ids=EOS, prompts=[prompt], lengths=[len(prompt)])[
        0
    ]


def options(dice: Any) -> Options:
    kinds: list[dict[str, Any]] = [
        {},
        {"do_sample": True, "seed": int(dice.integers(99)), "temperature": 1.5},
        {"repetition_penalty": 1.3, "min_new_tokens": 1},
        {"no_repeat_ngram_size": 3},
        {"do_sample": True, "seed": 1, "top_k": 3, "repetition_penalty": 0.8},
    ]
    return Options(max_new_tokens=int(dice.integers(1, 40)), **kinds[dice.integers(len(kinds))])


def test_a_thousand_answers_are_those_without_drafts() -> None:
    rested = followed = saved = 0
    for case in range(1000):
        dice = np.random.default_rng(case)
        vocab, memory = int(dice.integers(3, 30)), int(dice.integers(1, 4))
        asked, prompt = options(dice), dice.integers(1, vocab, dice.integers(1, 9)).tolist()
        room = len(prompt) + asked.max_new_tokens
        alone = Language(case, vocab, memory, room)
        plain = said(alone, prompt, asked)

        ngrams = Ngrams()
        for text in (prompt, plain.token_ids) if dice.random() < 0.3 else (prompt,):
            ngrams.learn(text)
        guess = Guess(plain.token_ids, float(dice.random()), vocab, dice)
        drafters: list[Drafter] = [[ngrams], [guess], [ngrams, guess]][dice.integers(3)]
        gain = Gain(ticking(dice).__next__)
        decoder = Language(case, vocab, memory, room)
        verified = Verified(decoder, drafters, gain, room)
        drafted = said(verified, prompt, asked)
        assert drafted == plain, case
        proposed, accepted = verified.drafted()
        assert 0 <= accepted <= proposed == sum(decoder.calls[1:]) - len(decoder.calls[1:])
        # A call gives one token, and what was right of its draft; at the end some may be left over.
        assert len(plain.token_ids) - len(decoder.calls) <= accepted
        followed += accepted
        saved += len(alone.calls) - len(decoder.calls)
        rested += gain._rest > REST
    assert followed > 1000 and saved > 1000 and rested > 50


# --- n-grams


def test_what_followed_the_same_tokens_is_expected_again() -> None:
    ngrams = Ngrams()
    ngrams.learn([5, 6, 7, 8])
    assert ngrams.propose([9], 4) == []
    assert ngrams.propose([9, 6], 4) == []  # one token alone says little
    assert ngrams.propose([9, 6, 7], 4) == [8]
    assert ngrams.propose([9, 6, 7, 1, 9, 6], 2) == [7, 1]  # the latest
    assert ngrams.propose([9, 6, 7, 1, 9, 6, 7], 9) == [1, 9, 6, 7, 1, 9, 6, 7, 1]  # goes round


def test_an_answer_is_expected_to_begin_as_what_was_learnt() -> None:
    ngrams = Ngrams()
    ngrams.learn([5, 6, 7])
    assert ngrams.propose([5], 4) == [6, 7]
    ngrams.begin()
    assert ngrams.propose([6], 4) == []
    assert ngrams.propose([6, 1, 2], 4) == []
    ngrams.begin()  # the answer before it was 6 1 2
    assert ngrams.propose([6], 4) == [1, 2]


def test_an_answer_is_not_lost_where_something_is_learnt_behind_it() -> None:
    ngrams = Ngrams()
    assert ngrams.propose([6, 1, 2], 4) == []
    ngrams.learn([8, 9])
    assert ngrams.propose([6], 4) == [1, 2]
    assert ngrams.propose([6, 8, 9], 4) == []


def test_a_longer_run_says_more_than_a_later_one() -> None:
    ngrams = Ngrams()
    ngrams.learn([1, 2, 3, 4, 5])
    ngrams.learn([9, 3, 4, 6])
    assert ngrams.propose([2, 3, 4], 1) == [5]
    ngrams.begin()
    assert ngrams.propose([3, 4], 1) == [6]


def test_texts_do_not_run_into_each_other() -> None:
    ngrams = Ngrams()
    ngrams.learn([1, 2])
    ngrams.learn([3, 4])
    assert ngrams.propose([1, 2], 4) == []
    assert ngrams.propose([1, 2, 3], 4) == []


# --- gain


def test_nothing_is_drafted_before_a_plain_step_was_measured() -> None:
    gain = Gain()
    assert gain.wanted() == 0
    gain.stepped(9.0)  # the first of all, which warms up
    assert gain.wanted() == 0 and not gain.plain
    gain.stepped(1.0)
    assert gain.wanted() > 0 and gain.plain == 1.0


def test_drafts_that_lose_rest_longer_each_time_and_come_back() -> None:
    gain = Gain(plain=1.0)
    for turn in range(3):
        for _ in range(WATCHED):
            assert gain.wanted()
            gain.drafted(2.5, 4, 0)
        rested = 0
        while not gain.wanted():
            rested += 1
        assert rested == REST * 2**turn
    for _ in range(2 * WATCHED):
        assert gain.wanted()
        gain.drafted(1.5, 4, 4)
    assert gain._rest == REST and (gain.proposed, gain.accepted) == (120, 48)


@pytest.mark.parametrize("proposed, accepted, after", [(4, 4, 8), (8, 8, 15), (8, 3, 4), (8, 0, 1)])
def test_the_next_draft_is_as_long_as_this_one_was_good(
    proposed: int, accepted: int, after: int
) -> None:
    gain = Gain(plain=1.0)
    gain.drafted(1.0, proposed, accepted)
    assert gain.wanted() == after
