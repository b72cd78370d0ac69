"""Rope beyond the trained context: prompts, steps and later turns, against transformers."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import alm
from alm.decoder import decoder as running
from alm.decoder.decoder import woven
from alm.facts import DimensionFacts
from alm.generation import parts
from alm.generation.model import Model
from alm.generation.past import Feed, History
from alm.timings import Stages
from tests.conftest import run_export
from tests.wrappers.families import tiny_hf

TRAINED = 96
ROPES: dict[str, dict[str, Any]] = {
    "dynamic": dict(
        max_position_embeddings=TRAINED,
        rope_parameters=dict(
            rope_type="dynamic",
            rope_theta=10000.0,
            factor=4.0,
            original_max_position_embeddings=TRAINED // 2,  # which transformers does not read
        ),
    ),
    "longrope": dict(
        max_position_embeddings=4 * TRAINED,
        rope_parameters=dict(
            rope_type="longrope",
            rope_theta=10000.0,
            factor=4.0,
            short_factor=[1.0, 1.1, 1.2, 1.3, 1.4, 1.5],
            long_factor=[1.0, 2.0, 3.0, 4.0, 5.0, 6.0],
            original_max_position_embeddings=TRAINED,
        ),
    ),
}


@pytest.fixture(scope="module", params=ROPES)
def pair(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[tiny_hf.Tiny, Model]:
    folder = tmp_path_factory.mktemp(request.param)
    tiny = tiny_hf.qwen2_audio(folder / "model", 1, **ROPES[request.param])
    run_export("--model", tiny.folder, "--out", folder / "out", "--dynamic-batch", "--no-simplify")
    return tiny, alm.load(folder / "out")


def truth(tiny: tiny_hf.Tiny, model: Model, row: Sequence[np.ndarray], most: int) -> list[int]:
    """transformers' greedy answer to a row of ids and embeddings, by a model that is new to it.

    A model that has generated before keeps the frequencies of its longest row.
    """
    text: Any = copy.deepcopy(tiny.truth.model.language_model)
    table = text.get_input_embeddings() if hasattr(text, "get_input_embeddings") else None
    assert table is not None
    pieces: list[Tensor] = [
        table(torch.from_numpy(each)) if each.ndim == 1 else torch.from_numpy(each) for each in row
    ]
    head = tiny.truth.get_output_embeddings()
    embeds, cache, said = torch.cat(pieces)[None], None, []
    for _ in range(most):
        out = text(inputs_embeds=embeds, past_key_values=cache, use_cache=True)
        hidden = getattr(out, "last_hidden_state", None)
        logits = out.logits[0, -1] if hidden is None else head(hidden[0, -1])
        cache = out.past_key_values
        said.append(int(logits.argmax()))
        if said[-1] in model.parts.eos:
            break
        embeds = table(torch.tensor(said[-1:]))[None]
    return said


def row_of(model: Model, turns: Sequence[tuple[str, list[np.ndarray], list[int]]]) -> list[Any]:
    """All turns in one row; an answer is without its end."""
    row: list[np.ndarray] = []
    heard = 0
    for i, (prompt, clips, answer) in enumerate(turns):
        built = model.parts.prompter.build(prompt, len(clips), heard, i == 0)
        row += woven(built.pieces, model.parts.audio_encoder.encode(clips, Stages())[0])
        row.append(np.array([token for token in answer if token not in model.parts.eos], np.int64))
        heard += len(clips)
    return row


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("words", [1, 30, 80, 150])
def test_prompts_and_steps_across_the_switch_equal_transformers(
    pair: tuple[tiny_hf.Tiny, Model], words: int
) -> None:
    tiny, model = pair
    clip, prompt = tiny_hf.noise(8000, words), "a" * words
    said = model.generate(
        clip, prompt, num_beams=1, max_new_tokens=24, repetition_penalty=1.0, do_sample=False
    )
    assert said.token_ids == truth(tiny, model, row_of(model, [(prompt, [clip], [])]), 24)


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("words", [30, 80, 150])
def test_a_prompt_fed_in_chunks_has_the_frequencies_of_its_whole_length(
    pair: tuple[tiny_hf.Tiny, Model], words: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny, model = pair
    fed: list[int] = []
    run = running.Decoder._run

    def counted(self: Any, embeds: np.ndarray, *more: Any) -> np.ndarray:
        fed.append(embeds.shape[1])
        return run(self, embeds, *more)

    monkeypatch.setattr(running.Decoder, "_run", counted)
    monkeypatch.setattr(parts, "MOST_FED", 16)
    clip, prompt = tiny_hf.noise(8000, words), "a" * words
    greedy: dict[str, Any] = dict(num_beams=1, max_new_tokens=4, do_sample=False)
    said = model.generate(clip, prompt, repetition_penalty=1.0, **greedy)
    assert said.token_ids == truth(tiny, model, row_of(model, [(prompt, [clip], [])]), 4)
    if model.manifest.facts.dimensions.rope_grows_past is not None:
        assert fed[0] == said.prompt_tokens
    else:
        beyond = said.prompt_tokens > TRAINED
        assert fed[0] == (TRAINED + 1 if beyond else 16)
        assert sum(fed) == said.prompt_tokens + len(said.token_ids) - 1


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_every_turn_equals_the_whole_conversation_given_anew(
    pair: tuple[tiny_hf.Tiny, Model],
) -> None:
    tiny, model = pair
    chat = model.chat(num_beams=1, max_new_tokens=16, repetition_penalty=1.0, do_sample=False)
    turns: list[tuple[str, list[np.ndarray], list[int]]] = []
    anew, longest = [], 0
    for i, (prompt, heard) in enumerate([("one", 1), ("two", 0), ("three", 1), ("four", 0)]):
        clips = [tiny_hf.noise(6000, i)] * heard
        said = chat.ask(prompt, *clips)
        turns.append((prompt, clips, []))
        assert said.token_ids == truth(tiny, model, row_of(model, turns), 16), prompt
        turns[-1] = (prompt, clips, said.token_ids)
        anew.append(said.cached_tokens == 0)
        longest = said.prompt_tokens
    assert longest > TRAINED and any(anew[1:])


def fed(whole: int, row: list[np.ndarray]) -> Feed:
    """A turn of so many positions that finds nothing in the cache."""
    return Feed([row], np.zeros((1, 0, 0), np.float32), np.array([whole]), 0)


def test_a_switch_costs_one_turn_and_growth_every_turn() -> None:
    row = [np.zeros(60, np.int64)]
    switching, growing = (
        History(DimensionFacts(rope_switches_past=96)),
        History(DimensionFacts(rope_grows_past=96)),
    )
    for each in (switching, growing):
        each.add(fed(60, row), 0, [0] * 10)
        assert not each.restarts(70, 90) and each.restarts(70, 120)
        each.add(fed(120, row), 0, [0] * 10)
    assert not switching.restarts(130, 150) and growing.restarts(130, 150)
    assert switching.restarts(0, 20)  # the cache was lost with a turn that failed
    plain = History(DimensionFacts())
    plain.add(fed(200, row), 0, [0])
    assert not plain.restarts(200, 300) and not plain.row


def test_a_doubling_costs_one_turn() -> None:
    row = [np.zeros(60, np.int64)]
    doubling = History(DimensionFacts(rope_doubles_past=96))
    doubling.add(fed(60, row), 0, [0] * 10)
    assert not doubling.restarts(70, 96) and doubling.restarts(70, 97)
    doubling.add(fed(120, row), 0, [0] * 10)
    assert not doubling.restarts(130, 192) and doubling.restarts(130, 193)
