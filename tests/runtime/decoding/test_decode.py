"""Decoding gives the tokens that transformers' `generate` gives for a prompt of embeddings."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from alm.decoding import search
from alm.decoding.options import Options
from alm.decoding.steps import Sequence
from alm.errors import BadArtifacts, BadOption
from tests.runtime.decoding import tiny_lm
from tests.runtime.decoding.tiny_lm import EOS, reason


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    with tiny_lm.one_thread():
        yield


@dataclass
class Constant:
    """A decoder that says the same whatever it is fed."""

    row: np.ndarray
    rows: int = 1

    @property
    def logits(self) -> np.ndarray:
        return np.tile(self.row, (self.rows, 1))

    def step(self, token_ids: np.ndarray) -> np.ndarray:
        assert len(token_ids) == self.rows
        return self.logits

    def reorder(self, rows: np.ndarray) -> None:
        self.rows = len(rows)


def Torch(seed: int, batch: int, row: int | None = None) -> tiny_lm.Torch:  # noqa: N802
    """A decoder that has read prompts of embeddings, or one of them."""
    embeds = tiny_lm.embeddings(seed, batch)
    return tiny_lm.Torch(seed, embeds if row is None else embeds[row : row + 1])


def ours(seed: int, batch: int, options: Options, eos: frozenset[int]) -> list[Sequence]:
    return tiny_lm.ours(seed, tiny_lm.embeddings(seed, batch), options, eos)


def theirs(seed: int, batch: int, options: Options, eos: frozenset[int]) -> tuple[Any, Any]:
    return tiny_lm.theirs(seed, tiny_lm.embeddings(seed, batch), options, eos)


@pytest.mark.parametrize("eos", EOS, ids=lambda eos: f"{len(eos)}-eos")
@pytest.mark.parametrize("penalty", [1.0, 1.3, 0.7])
def test_greedy_tokens_are_those_of_transformers(penalty: float, eos: frozenset[int]) -> None:
    for seed, batch, least in itertools.product(range(3), (1, 3), (0, 4)):
        options = Options(max_new_tokens=14, repetition_penalty=penalty, min_new_tokens=least)
        rows, _ = theirs(seed, batch, options, eos)
        answers = ours(seed, batch, options, eos)
        assert [answer.token_ids for answer in answers] == rows
        assert [answer.stop_reason for answer in answers] == [reason(row, eos) for row in rows]


@pytest.mark.parametrize("beams", [1, 3])
def test_an_answer_may_have_no_eos_and_a_single_token(beams: int) -> None:
    for most, eos in ((1, EOS[1]), (6, frozenset())):
        options = Options(max_new_tokens=most, num_beams=beams)
        rows, _ = theirs(2, 2, options, eos)
        assert [answer.token_ids for answer in ours(2, 2, options, eos)] == rows


@pytest.mark.parametrize(
    "options",
    [
        Options(max_new_tokens=12, repetition_penalty=1.2),
        Options(max_new_tokens=12, num_beams=4, early_stopping="never"),
        Options(max_new_tokens=12, num_beams=3, early_stopping=True),
    ],
    ids=["greedy", "never", "early"],
)
def test_a_row_in_a_batch_is_answered_as_if_it_were_alone(options: Options) -> None:
    for seed in range(4):
        together = ours(seed, 3, options, EOS[1])
        for row, answer in enumerate(together):
            alone = Torch(seed, 3, row)
            (single,) = tiny_lm.answers(alone.logits, alone, options, eos_ids=EOS[1])
            assert single.token_ids == answer.token_ids


def test_rows_that_are_done_are_not_fed_any_more() -> None:
    decoder = Torch(1, 3)
    answers = tiny_lm.answers(decoder.logits, decoder, Options(max_new_tokens=14), eos_ids=EOS[2])
    lengths = [len(answer.token_ids) for answer in answers]
    assert len(set(lengths)) > 1
    steps = range(1, max(lengths))
    assert decoder.fed == [sum(length > step for length in lengths) for step in steps]


def test_tokens_are_sampled_as_often_as_their_probability_says() -> None:
    chances = np.array([0.4, 0.3, 0.15, 0.1, 0.05])
    decoder = Constant(np.log(chances).astype(np.float32))
    options = Options(max_new_tokens=5000, do_sample=True, seed=3)
    (answer,) = tiny_lm.answers(decoder.logits, decoder, options, eos_ids=frozenset())
    counts = np.bincount(answer.token_ids, minlength=5)
    chi_square = ((counts - 5000 * chances) ** 2 / (5000 * chances)).sum()
    assert chi_square < 18.5  # 4 degrees of freedom: one seed in a thousand is above


def test_top_k_and_top_p_leave_the_unlikely_out() -> None:
    decoder = Constant(np.log([0.4, 0.3, 0.15, 0.1, 0.05]).astype(np.float32))
    sampled = Options(max_new_tokens=300, do_sample=True, seed=0)
    for options, allowed in (
        (replace(sampled, top_k=2), {0, 1}),
        (replace(sampled, top_p=0.8), {0, 1, 2}),
    ):
        (answer,) = tiny_lm.answers(decoder.logits, decoder, options, eos_ids=frozenset())
        assert set(answer.token_ids) == allowed


def test_a_seed_repeats_its_answer_and_no_seed_does_not() -> None:
    options = Options(max_new_tokens=30, do_sample=True, temperature=3.0, seed=5)
    first, again = (ours(0, 2, options, frozenset()) for _ in range(2))
    assert first == again
    assert first[0].token_ids != first[1].token_ids
    assert first != ours(0, 2, replace(options, seed=6), frozenset())
    unseeded = replace(options, seed=None)
    assert ours(0, 2, unseeded, frozenset()) != ours(0, 2, unseeded, frozenset())


def test_a_sampled_row_does_not_depend_on_the_rows_beside_it() -> None:
    options = Options(max_new_tokens=20, do_sample=True, temperature=2.0, top_p=0.9, seed=9)
    three = ours(4, 3, options, EOS[2])
    for row in range(3):
        alone = Torch(4, 3, row=row)
        assert tiny_lm.answers(alone.logits, alone, options, eos_ids=EOS[2]) == three[row : row + 1]
    two = Torch(4, 3)
    two.reorder(np.array([0, 1]))
    assert tiny_lm.answers(two.logits[:2], two, options, eos_ids=EOS[2]) == three[:2]


def test_equal_rows_draw_alike_from_a_seed_and_go_on_when_another_ends() -> None:
    options = Options(max_new_tokens=20, do_sample=True, seed=9)

    def answers(ends: tuple[int, int]) -> list[Sequence]:
        decoder = Constant(np.zeros(9, np.float32), rows=3)
        return tiny_lm.answers(
            decoder.logits,
            decoder,
            options,
            eos_ids=frozenset(),
            stopped=lambda row, token_ids: (row, len(token_ids)) == ends,
        )

    whole = answers((0, 20))
    assert len({tuple(answer.token_ids) for answer in whole}) == 1
    assert answers((0, 3))[1:] == whole[1:]


def test_sampling_at_the_lowest_temperature_is_greedy() -> None:
    cold = Options(max_new_tokens=10, do_sample=True, temperature=1e-6, seed=1)
    greedy = [answer.token_ids for answer in ours(3, 2, Options(max_new_tokens=10), EOS[0])]
    assert [answer.token_ids for answer in ours(3, 2, cold, EOS[0])] == greedy


def test_every_row_has_its_own_stop_strings() -> None:
    plain = ours(0, 3, Options(max_new_tokens=12), frozenset())
    lengths = {0: 4, 1: 12, 2: 1}

    def stopped(row: int, token_ids: list[int]) -> bool:
        return len(token_ids) == lengths[row] < 12

    decoder = Torch(0, 3)
    answers = tiny_lm.answers(
        decoder.logits, decoder, Options(max_new_tokens=12), eos_ids=frozenset(), stopped=stopped
    )
    for row, answer in enumerate(answers):
        assert answer.token_ids == plain[row].token_ids[: lengths[row]]
    assert [answer.stop_reason for answer in answers] == ["stop_string", "length", "stop_string"]


def test_a_stop_string_ends_a_beam_as_the_eos_would() -> None:
    for seed, early in itertools.product(range(4), (False, True)):
        options = Options(max_new_tokens=12, num_beams=4, early_stopping=early)
        as_eos = ours(seed, 3, options, frozenset({7}))
        decoder = Torch(seed, 3)
        as_text = tiny_lm.answers(
            decoder.logits,
            decoder,
            options,
            eos_ids=frozenset(),
            stopped=lambda _, token_ids: token_ids[-1] == 7,
        )
        assert [answer.token_ids for answer in as_text] == [answer.token_ids for answer in as_eos]
        for text, eos in zip(as_text, as_eos, strict=True):
            assert text.stop_reason == eos.stop_reason.replace("eos", "stop_string")


def test_a_row_whose_beams_all_stop_at_once_is_answered() -> None:
    decoder = Torch(0, 3)
    answers = tiny_lm.answers(
        decoder.logits,
        decoder,
        Options(max_new_tokens=12, num_beams=3),
        eos_ids=EOS[0],
        stopped=lambda row, token_ids: row == 1 and len(token_ids) == 2,
    )
    assert (len(answers[1].token_ids), answers[1].stop_reason) == (2, "stop_string")
    assert answers[0] == ours(0, 3, Options(max_new_tokens=12, num_beams=3), EOS[0])[0]


def test_every_step_has_a_token_of_each_row_that_goes_on() -> None:
    heard: list[list[int]] = [[], [], []]
    ended: dict[int, Sequence] = {}
    decoder = Torch(1, 3)
    for step in search.decode(decoder.logits, decoder, Options(max_new_tokens=10), eos_ids=EOS[2]):
        assert not step.tokens.keys() & ended.keys() and step.ended.keys() <= step.tokens.keys()
        for row, token in step.tokens.items():
            heard[row].append(token)
        ended |= step.ended
    assert heard == [ended[row].token_ids for row in range(3)]


@pytest.mark.parametrize("beams", [1, 3])
def test_nothing_is_decoded_that_nobody_asks_for(beams: int) -> None:
    decoder = Torch(0, 2)
    options = Options(max_new_tokens=10, min_new_tokens=10, num_beams=beams)
    steps = search.decode(decoder.logits, decoder, options, eos_ids=EOS[0])
    assert decoder.fed == []
    first, second = next(steps), next(steps)
    assert first.decoder_ms is None and second.decoder_ms and second.decoder_ms > 0
    assert decoder.fed == [2 * beams] and not first.ended
    assert [*first.tokens] == ([0, 1] if beams == 1 else [])
    steps.close()  # pyright: ignore
    assert decoder.fed == [2 * beams] and not list(steps)


@pytest.mark.parametrize("beams", [1, 2])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_logits_that_are_not_numbers_are_refused(bad: float, beams: int) -> None:
    fine = Constant(np.arange(9, dtype=np.float32))
    broken = Constant(np.array([0, bad, 1], np.float32))
    options = Options(num_beams=beams)
    with pytest.raises(BadArtifacts, match="not finite numbers"):
        tiny_lm.answers(broken.logits, broken, options, eos_ids=frozenset())
    with pytest.raises(BadArtifacts, match="not finite numbers"):
        tiny_lm.answers(fine.logits, Late(fine.row, bad), options, eos_ids=frozenset())
    with pytest.raises(BadArtifacts, match=r"must give logits \[1, vocabulary\]"):
        tiny_lm.answers(fine.logits[:, None], fine, options, eos_ids=frozenset())


@dataclass
class Late:
    """A decoder that breaks after its prompt."""

    row: np.ndarray
    bad: float

    def step(self, token_ids: np.ndarray) -> np.ndarray:
        return np.tile(np.append(self.row, np.float32(self.bad)), (len(token_ids), 1))

    def reorder(self, rows: np.ndarray) -> None:
        pass


def test_the_logits_of_the_decoder_are_left_as_they_were() -> None:
    decoder = Torch(0, 2)
    before = decoder.logits.copy()
    for options in (
        Options(max_new_tokens=2, min_new_tokens=2, repetition_penalty=2.0),
        Options(max_new_tokens=2, min_new_tokens=2, num_beams=3),
        Options(max_new_tokens=2, do_sample=True, top_k=3, top_p=0.5, temperature=0.5),
    ):
        decoder = Torch(0, 2)
        tiny_lm.answers(decoder.logits, decoder, options, eos_ids=EOS[2])
        assert np.array_equal(decoder.logits, before)


def test_no_rows_have_no_answers() -> None:
    decoder = Constant(np.zeros(4, np.float32), rows=0)
    for beams in (1, 2):
        logits = np.zeros((0, 4), np.float32)
        assert tiny_lm.answers(logits, decoder, Options(num_beams=beams), eos_ids=frozenset()) == []


@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        ({"max_new_tokens": 0}, "max_new_tokens must be a whole number of at least 1, not 0"),
        ({"max_new_tokens": 2.5}, "max_new_tokens must be a whole number of at least 1, not 2.5"),
        ({"num_beams": 0}, "num_beams must be a whole number of at least 1, not 0"),
        ({"num_beams": True}, "num_beams must be a whole number of at least 1, not True"),
        ({"top_k": -1}, "top_k must be a whole number of at least 0, not -1"),
        ({"min_length": -1}, "min_length must be a whole number of at least 0, not -1"),
        ({"min_new_tokens": 300}, "min_new_tokens 300 is more than max_new_tokens 200"),
        ({"seed": -1}, "seed must be a whole number of at least 0, not -1"),
        ({"do_sample": True, "temperature": 0.0}, "temperature 0; ask for greedy"),
        ({"do_sample": True, "temperature": -1.0}, "temperature must be a number from 1e-06"),
        ({"do_sample": True, "temperature": np.nan}, "temperature must be a number from 1e-06"),
        ({"top_p": 0.0}, "top_p must be above 0 and at most 1, not 0.0"),
        ({"top_p": 1.1}, "top_p must be above 0 and at most 1, not 1.1"),
        ({"top_p": np.nan}, "top_p must be above 0 and at most 1, not nan"),
        ({"repetition_penalty": 0.0}, "repetition_penalty must be a number from 1e-06"),
        ({"repetition_penalty": np.inf}, "repetition_penalty must be a number from 1e-06"),
        ({"length_penalty": np.inf}, "length_penalty must be a number from -8 to 8, not inf"),
        ({"early_stopping": "always"}, "early_stopping must be False, True or 'never'"),
    ],
)
def test_an_option_out_of_range_is_refused_in_one_sentence(
    said: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(BadOption) as caught:
        Options(**said)
    assert sentence in str(caught.value)
    assert isinstance(caught.value, ValueError)


def test_a_temperature_without_sampling_is_ignored() -> None:
    assert Options(temperature=0.0).do_sample is False


@pytest.mark.parametrize("said", [{"repetition_penalty": 1e6}, {"repetition_penalty": 1e-6}])
def test_options_at_their_ends_overflow_nothing(said: dict[str, float]) -> None:
    make: Callable[..., Options] = Options
    for rest in ({"num_beams": 3, "length_penalty": 8.0}, {"do_sample": True, "temperature": 1e-6}):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            (answer,) = ours(0, 1, make(max_new_tokens=20, **said, **rest), frozenset())
        assert len(answer.token_ids) == 20
