"""Answers of several threads as rows of one step: each is the one that it would be alone."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import alm
from alm.errors import AlmError, BadArtifacts, BadOption
from alm.generation.answers import Answer
from alm.generation.model import Model
from tests.conftest import in_dialect

MOST = 4
GREEDY: Any = {"num_beams": 1}


@pytest.fixture(scope="module")
def alone(artifacts: Path) -> Model:
    return alm.load(artifacts, threads=1)


@pytest.fixture
def shared(artifacts: Path) -> Iterator[Model]:
    model = alm.load(artifacts, threads=1, together=MOST)
    yield model
    assert_empty(model)


def assert_empty(model: Model) -> None:
    """Nobody has left a row behind."""
    together = model.parts.together
    assert together is not None
    assert not together._members and not together._answering and not together._given
    assert not together._rows.cache.kept


def counted(model: Model) -> list[int]:
    """The rows of every step that is run for several from now on."""
    together = model.parts.together
    assert together is not None
    rows, step = [], together._rows.step

    def count(ids: np.ndarray) -> np.ndarray:
        rows.append(len(ids))
        return step(ids)

    together._rows.step = count  # pyright: ignore[reportAttributeAccessIssue]
    return rows


def noise(seed: int) -> np.ndarray:
    dice = np.random.default_rng(seed)
    return (0.1 * dice.standard_normal(6000 + 900 * (seed % 7))).astype(np.float32)


def at_once(calls: list[Callable[[], Any]]) -> list[Any]:
    with ThreadPoolExecutor(len(calls)) as pool:
        return [future.result() for future in [pool.submit(call) for call in calls]]


def asked(seed: int) -> tuple[np.ndarray, str, Any]:
    """A clip, a prompt and options, all of chance."""
    dice = np.random.default_rng(1000 + seed)
    ways: list[Any] = [
        {"num_beams": 1},
        {"do_sample": True, "temperature": 1.3, "seed": seed, "num_beams": 1},
        {"num_beams": 1, "repetition_penalty": 1.3},
        {"num_beams": 3},
    ]
    options = ways[int(dice.choice(4, p=[0.4, 0.3, 0.2, 0.1]))]
    most = int(dice.integers(1, 60))
    prompt = "Say what you hear. " * int(dice.integers(1, 12))
    return noise(seed), prompt, options | {"max_new_tokens": most, "min_new_tokens": most}


def test_answers_that_join_and_leave_at_any_step_are_those_alone(
    alone: Model, shared: Model
) -> None:
    rows = counted(shared)
    questions = [asked(seed) for seed in range(40)]
    want = [
        alone.generate(clip, prompt, **options).token_ids for clip, prompt, options in questions
    ]

    def ask(question: tuple[np.ndarray, str, Any]) -> list[int]:
        clip, prompt, options = question
        return shared.generate(clip, prompt, **options).token_ids

    with ThreadPoolExecutor(MOST) as pool:
        assert list(pool.map(ask, questions)) == want
    assert max(rows) == MOST and sum(n > 1 for n in rows) > 20


def test_more_threads_than_rows_are_answered_too(alone: Model, shared: Model) -> None:
    options: Any = GREEDY | {"max_new_tokens": 12, "min_new_tokens": 12}
    rows = counted(shared)
    clips = [noise(seed) for seed in range(3 * MOST)]
    got = at_once([lambda c=c: shared.generate(c, "describe", **options) for c in clips])
    assert [a.token_ids for a in got] == [
        alone.generate(c, "describe", **options).token_ids for c in clips
    ]
    assert max(rows, default=0) <= MOST


def test_one_alone_moves_nothing(shared: Model) -> None:
    rows = counted(shared)
    shared.generate(noise(0), "describe", max_new_tokens=5)
    assert rows == []


def test_conversations_go_on_from_what_the_rows_computed(alone: Model, shared: Model) -> None:
    options: Any = GREEDY | {"max_new_tokens": 48, "min_new_tokens": 48}

    def talk(model: Model, seed: int) -> list[tuple[list[int], int]]:
        chat = model.chat(**options)
        answers = [chat.ask("describe", noise(seed)), chat.ask("And now?"), chat.ask("Why?")]
        return [(answer.token_ids, answer.cached_tokens) for answer in answers]

    rows = counted(shared)
    got = at_once([lambda s=s: talk(shared, s) for s in range(MOST)])
    assert got == [talk(alone, seed) for seed in range(MOST)]
    assert max(rows) > 1


def test_whoever_reads_slowly_keeps_nobody(alone: Model, shared: Model) -> None:
    options: Any = GREEDY | {"max_new_tokens": 30, "min_new_tokens": 30}
    slow = shared.stream(noise(1), "describe", **options)
    pieces = [next(slow)]
    answers: list[Answer] = []
    others = [
        threading.Thread(
            target=lambda s=s: answers.append(shared.generate(noise(s), "describe", **options))
        )
        for s in (2, 3)
    ]
    for thread in others:
        thread.start()
    for _ in range(3):  # joins between two pieces, and is left behind while it rests
        pieces.append(next(slow))
        time.sleep(0.12)
    for thread in others:
        thread.join(20)
    assert len(answers) == 2
    pieces += slow
    assert "".join(pieces) == alone.generate(noise(1), "describe", **options).text


def test_whoever_goes_away_half_way_leaves_the_others_alone(alone: Model, shared: Model) -> None:
    options: Any = GREEDY | {"max_new_tokens": 20, "min_new_tokens": 20}

    def leave(seed: int) -> None:
        stream = shared.stream(noise(seed), "describe", **options)
        for _ in range(4):
            next(stream)
        stream.close()

    def ask(seed: int) -> list[int]:
        return shared.generate(noise(seed), "describe", **options).token_ids

    calls = [lambda s=s: leave(s) if s % 2 else ask(s) for s in range(8)]
    got = [answer for answer in at_once(calls) if answer]
    assert got == [alone.generate(noise(s), "describe", **options).token_ids for s in (0, 2, 4, 6)]


def test_a_step_that_fails_is_everybodys_error_and_the_next_is_answered(shared: Model) -> None:
    together = shared.parts.together
    assert together is not None
    step, options = together._rows.step, GREEDY | {"max_new_tokens": 48, "min_new_tokens": 48}

    def fail(ids: np.ndarray) -> np.ndarray:
        raise BadArtifacts("ONNX Runtime failed: out of memory")

    def ask(seed: int) -> list[int] | str:
        try:
            return shared.generate(noise(seed), "describe", **options).token_ids
        except AlmError as error:
            return str(error)

    want = ask(0)
    together._rows.step = fail  # pyright: ignore[reportAttributeAccessIssue]
    assert "ONNX Runtime failed: out of memory" in at_once([lambda s=s: ask(s) for s in range(4)])
    together._rows.step = step  # pyright: ignore[reportAttributeAccessIssue]
    assert at_once([lambda: ask(0)] * 3) == [want] * 3


@pytest.mark.parametrize("dialect", ["decomposed", "standard"])
def test_other_dialects_are_answered_as_alone(
    dialect: str, artifacts: Path, checkpoint: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = in_dialect(dialect, artifacts, checkpoint, tmp_path_factory)
    alone, shared = alm.load(folder, threads=1), alm.load(folder, threads=1, together=MOST)
    assert (shared.parts.together is not None) == (dialect != "decomposed")
    questions = [asked(seed) for seed in range(8)]

    def ask(model: Model, question: tuple[np.ndarray, str, Any]) -> list[int]:
        clip, prompt, options = question
        return model.generate(clip, prompt, **options).token_ids

    got = at_once([lambda q=q: ask(shared, q) for q in questions])
    assert got == [ask(alone, question) for question in questions]


@pytest.mark.parametrize("rows", [0, -1, 257])
def test_a_wrong_number_of_answers_at_once_is_refused(rows: int, artifacts: Path) -> None:
    with pytest.raises(BadOption, match="together is 1 to 256 answers at once"):
        alm.load(artifacts, together=rows)
