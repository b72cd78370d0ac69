"""What changes the scores changes the tokens as transformers' `generate` changes them."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from transformers import GenerationConfig, LogitsProcessorList

from alm.decoding.options import Options
from alm.decoding.processors import History, Processors, Prompt
from alm.errors import BadOption, BadPrompt
from tests.runtime.decoding import tiny_lm
from tests.runtime.decoding.tiny_lm import EOS, VOCAB, ours, theirs

ANY: dict[str, dict[str, Any]] = {
    "sequence_bias": dict(
        sequence_bias=[[[5], 2.5], [[9], -30.0], [[3, 4], 8.0], [[1, 2, 9], 9.0]]
    ),
    "encoder_repetition_penalty": dict(encoder_repetition_penalty=1.6),
    "repetition_penalty": dict(repetition_penalty=1.4),
    "no_repeat_1": dict(no_repeat_ngram_size=1),
    "no_repeat_2": dict(no_repeat_ngram_size=2, repetition_penalty=0.5),
    "no_repeat_3": dict(no_repeat_ngram_size=3, repetition_penalty=0.5),
    "encoder_no_repeat_1": dict(encoder_no_repeat_ngram_size=1),
    "encoder_no_repeat_2": dict(encoder_no_repeat_ngram_size=2, repetition_penalty=0.5),
    "bad_words_ids": dict(bad_words_ids=[[7], [5], [9, 10], [20], [1, 2, 3], [33, 4]]),
    "min_length": dict(min_length=14),
    "min_new_tokens": dict(min_new_tokens=6, min_length=100),
    "max_length": dict(max_length=13),
    "forced_bos_token_id": dict(forced_bos_token_id=17),
    "forced_eos_token_id": dict(forced_eos_token_id=7),
    "forced_eos_ids": dict(forced_eos_token_id=[9, 11], max_new_tokens=5, num_beams=1),
    "remove_invalid_values": dict(remove_invalid_values=True, suppress_tokens=[1, 2]),
    "exponential_decay": dict(exponential_decay_length_penalty=[3, 1.3], min_new_tokens=2),
    "suppress_tokens": dict(suppress_tokens=[*range(0, 40, 3), 7, 5000]),
    "begin_suppress_tokens": dict(begin_suppress_tokens=[*range(0, 48, 2)]),
    "begin_and_bos": dict(begin_suppress_tokens=[*range(0, 48, 2)], forced_bos_token_id=9),
    "watermark": dict(watermarking_config={"bias": 4.0, "hashing_key": 7}),
    "watermark_context": dict(watermarking_config={"greenlist_ratio": 0.5, "context_width": 3}),
    "renormalize": dict(renormalize_logits=True, repetition_penalty=1.3, num_beams=3),
    "all": dict(
        sequence_bias=[[[5], 2.5], [[3, 4], 8.0]],
        encoder_repetition_penalty=1.2,
        repetition_penalty=1.3,
        no_repeat_ngram_size=2,
        encoder_no_repeat_ngram_size=3,
        bad_words_ids=[[13]],
        min_new_tokens=3,
        forced_eos_token_id=7,
        remove_invalid_values=True,
        exponential_decay_length_penalty=[4, 1.2],
        suppress_tokens=[2, 6],
        begin_suppress_tokens=[1],
        watermarking_config={"bias": 1.0},
        renormalize_logits=True,
    ),
}
SAMPLED: dict[str, dict[str, Any]] = {
    "temperature": dict(temperature=0.7),
    "top_h": dict(top_h=0.4),
    "top_k": dict(top_k=5),
    "top_p": dict(top_p=0.8),
    "min_p": dict(min_p=0.2),
    "min_p_1": dict(min_p=1.0),
    "typical_p": dict(typical_p=0.6),
    "epsilon_cutoff": dict(epsilon_cutoff=0.03),
    "eta_cutoff": dict(eta_cutoff=0.1),
    "several": dict(temperature=1.5, top_k=30, top_p=0.9, min_p=0.01, typical_p=0.9),
    "cutoffs": dict(temperature=1.2, top_h=0.9, epsilon_cutoff=3e-3, eta_cutoff=0.02),
    "marked": dict(top_k=20, watermarking_config={}, renormalize_logits=True),
}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    with tiny_lm.one_thread():
        yield


@pytest.mark.parametrize("kind", ["ids", "embeddings"])
@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("name", ANY)
def test_tokens_are_those_of_transformers(name: str, beams: int, kind: str) -> None:
    given: dict[str, Any] = {"max_new_tokens": 14, "num_beams": beams} | ANY[name]
    options = Options(**given)
    for seed in range(2):
        eos = EOS[seed]
        prompts = getattr(tiny_lm, kind)(seed, 1)
        want, _ = theirs(seed, prompts, options, eos)
        got = ours(seed, prompts, options, eos)
        assert [answer.token_ids for answer in got] == want, (seed, options)


@pytest.mark.parametrize("name", [name for name in ANY if name != "encoder_repetition_penalty"])
def test_no_setting_is_without_effect_on_these_prompts(name: str) -> None:
    plain = Options(max_new_tokens=14, num_beams=ANY[name].get("num_beams", 1))
    given: dict[str, Any] = {"max_new_tokens": 14} | ANY[name]
    changed = Options(**given)
    differ = [
        ours(seed, prompts, plain, EOS[seed]) != ours(seed, prompts, changed, EOS[seed])
        for seed in range(2)
        for prompts in (tiny_lm.ids(seed, 1), tiny_lm.embeddings(seed, 1))
    ]
    assert any(differ)


def test_the_encoders_penalty_is_for_what_the_prompt_has_not() -> None:
    plain, changed = (
        Options(max_new_tokens=14),
        Options(max_new_tokens=14, encoder_repetition_penalty=4.0),
    )
    texts = [tiny_lm.ids(seed, 1) for seed in range(3)]
    assert any(ours(0, t, plain, EOS[0]) != ours(0, t, changed, EOS[0]) for t in texts)
    embeds = tiny_lm.embeddings(0, 2)  # they have no tokens: transformers ignores it, too
    assert ours(0, embeds, plain, EOS[0]) == ours(0, embeds, changed, EOS[0])


@pytest.mark.parametrize("kind", ["ids", "embeddings"])
@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("name", ["all", "min_length", "max_length", "no_repeat_2"])
def test_a_row_of_another_length_is_answered_as_if_it_were_alone(
    name: str, beams: int, kind: str
) -> None:
    given: dict[str, Any] = {"max_new_tokens": 10, "num_beams": beams} | ANY[name]
    options = Options(**given)
    rows = [getattr(tiny_lm, kind)(seed, 1)[:, :size] for seed, size in ((0, 9), (1, 4), (2, 7))]
    scores = [_Rows.of(0, row) for row in rows]
    together = tiny_lm.answers(
        np.concatenate([each.logits for each in scores]),
        _Rows(scores),
        options,
        eos_ids=EOS[0],
        prompts=[row[0].tolist() for row in rows] if kind == "ids" else (),
        lengths=[row.shape[1] for row in rows],
    )
    alone = [ours(0, row, options, EOS[0])[0].token_ids for row in rows]
    assert [answer.token_ids for answer in together] == alone


class _Rows:
    """A decoder of rows that each have a cache of their own."""

    def __init__(self, rows: list[tiny_lm.Torch]) -> None:
        self.rows = rows

    @staticmethod
    def of(seed: int, prompt: torch.Tensor) -> tiny_lm.Torch:
        return tiny_lm.Torch(seed, prompt)

    def step(self, token_ids: np.ndarray) -> np.ndarray:
        parts = [row.step(token_ids[i : i + 1]) for i, row in enumerate(self.rows)]
        return np.concatenate(parts)

    def reorder(self, rows: np.ndarray) -> None:
        self.rows = [copy.copy(self.rows[row]) for row in rows]
        for row in self.rows:
            row.cache = copy.deepcopy(row.cache)


@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("name", SAMPLED)
@pytest.mark.parametrize(("vocab", "spread"), [(VOCAB, 3.0), (20_000, 4.0), (5_000, 0.1)])
def test_sampling_draws_from_the_distribution_of_transformers(
    name: str, beams: int, vocab: int, spread: float
) -> None:
    scores = np.random.default_rng(vocab).normal(0, spread, (4, vocab)).astype(np.float32)
    if beams > 1:
        scores = torch.from_numpy(scores).log_softmax(-1).numpy()
    options = Options(do_sample=True, num_beams=beams, **SAMPLED[name])
    got = Processors(options, {3, 9})(scores, [History(Prompt(), [i]) for i in range(4)])
    said: Any = GenerationConfig(**tiny_lm.config(options, frozenset({3, 9})))
    said._eos_token_tensor = torch.tensor([3, 9])
    model = tiny_lm.language_model(0)
    before = model.config.vocab_size
    model.config.vocab_size = vocab  # of the watermark
    try:
        theirs_: LogitsProcessorList = model._get_logits_processor(
            said, input_ids_seq_length=0, device="cpu"
        )
    finally:
        model.config.vocab_size = before
    ids: Any = torch.arange(4)[:, None]
    want: Any = theirs_(ids, torch.from_numpy(scores))  # pyright: ignore[reportArgumentType]
    assert np.array_equal(np.isfinite(got), np.isfinite(want.numpy()))
    chances = torch.from_numpy(got).softmax(-1)
    torch.testing.assert_close(chances, want.softmax(-1), rtol=2e-6, atol=0)


def test_numbers_that_are_none_are_let_through_where_asked() -> None:
    scores = np.array([[np.nan, 2.0, -np.inf, np.inf, 1.0]], np.float32)
    for beams in (1, 2):
        options = Options(remove_invalid_values=True, num_beams=beams, max_new_tokens=2)
        got = Processors(options, ())(scores, [History(Prompt(), [])])
        largest = np.finfo(np.float32).max
        assert got.tolist() == [[0.0, 2.0, -largest, largest, 1.0]]


@pytest.mark.parametrize("beams", [1, 2])
@pytest.mark.parametrize("sampled", [False, True])
def test_options_that_forbid_every_token_are_refused(beams: int, sampled: bool) -> None:
    everything = Options(
        max_new_tokens=3, num_beams=beams, do_sample=sampled, suppress_tokens=tuple(range(VOCAB))
    )
    with pytest.raises(BadOption, match="forbid every token"):
        ours(0, tiny_lm.ids(0, 1), everything, EOS[0])


@pytest.mark.parametrize(
    "said",
    [
        dict(bad_words_ids=[[VOCAB]]),
        dict(sequence_bias=[[[2, VOCAB], 1.0]]),
        dict(forced_eos_token_id=VOCAB),
        dict(forced_bos_token_id=VOCAB + 5),
    ],
)
def test_a_token_beyond_the_vocabulary_is_refused(said: dict[str, Any]) -> None:
    with pytest.raises(BadOption, match="and the vocabulary is 48"):
        ours(0, tiny_lm.ids(0, 1), Options(**said), EOS[0])


def test_a_longest_length_without_room_is_refused() -> None:
    with pytest.raises(BadPrompt, match="9 tokens long with its audio, and max_length 9 counts it"):
        ours(0, tiny_lm.ids(0, 1), Options(max_length=9), EOS[0])
