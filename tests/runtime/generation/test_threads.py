"""What threads may share: a model, and a conversation, whose turns they take one by one."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import alm
from alm.errors import BadOption
from alm.generation.answers import Answer
from alm.generation.model import Model

GREEDY: Any = {"num_beams": 1, "max_new_tokens": 10}
PROMPTS = ("describe", "What is it?", "And now?", "Is that all?")


@pytest.fixture(scope="module")
def loaded(artifacts: Path) -> Model:
    return alm.load(artifacts, threads=1)


def noise(seed: int) -> np.ndarray:
    dice = np.random.default_rng(seed)
    return (0.1 * dice.standard_normal(9000 + 500 * seed)).astype(np.float32)


def at_once(work: Any, items: Any) -> list[Any]:
    """`work(item)` of all items, each in a thread of its own, begun together."""
    gate = threading.Barrier(len(items))

    def begin(item: Any) -> Any:
        gate.wait()
        return work(item)

    with ThreadPoolExecutor(len(items)) as pool:
        return list(pool.map(begin, items))


def said(answer: Answer) -> tuple[str, list[int], int]:
    return answer.text, answer.token_ids, answer.prompt_tokens


def test_a_model_gives_in_four_threads_what_it_gives_alone(loaded: Model) -> None:
    asked = [(seed, way) for seed in range(2) for way in (1, 3)]

    def ask(item: tuple[int, int]) -> list[Any]:
        seed, beams = item
        options: Any = GREEDY | {"num_beams": beams}
        whole = loaded.generate(noise(seed), "describe", **options)
        pieces = "".join(loaded.stream(noise(seed), "describe", **options))
        return [said(whole), pieces == whole.text]

    alone = [ask(item) for item in asked]
    assert at_once(ask, asked) == alone and all(equal for _, equal in alone)


def test_conversations_side_by_side_do_not_hear_each_other(loaded: Model) -> None:
    def talk(seed: int) -> list[Any]:
        chat = loaded.chat(**GREEDY)
        return [said(chat.ask("describe", noise(seed))), said(chat.ask("And now?"))]

    assert at_once(talk, range(4)) == [talk(seed) for seed in range(4)]


def test_threads_that_share_a_conversation_take_turns(loaded: Model) -> None:
    chat = loaded.chat(**GREEDY)
    told: list[tuple[str, str]] = []  # prompt, piece: as they come
    order: list[str] = []

    def ask(prompt: str) -> Answer:
        answer = chat.ask(prompt, on_text=lambda piece: told.append((prompt, piece)))
        order.append(prompt)
        return answer

    answers: dict[str, Answer] = dict(zip(PROMPTS, at_once(ask, PROMPTS), strict=True))
    assert chat.turns == len(PROMPTS)
    order.sort(key=lambda prompt: answers[prompt].prompt_tokens)  # as the turns were taken
    twin = loaded.chat(**GREEDY)
    for prompt in order:
        assert said(twin.ask(prompt)) == said(answers[prompt])
        assert "".join(piece for who, piece in told if who == prompt) == answers[prompt].text
    speakers = [who for i, (who, _) in enumerate(told) if i == 0 or told[i - 1][0] != who]
    assert len(speakers) == len(set(speakers))  # nobody speaks into another's answer


def test_a_question_inside_an_answer_is_refused_and_costs_nothing(loaded: Model) -> None:
    chat, twin = loaded.chat(**GREEDY), loaded.chat(**GREEDY)
    assert said(chat.ask("describe", noise(1))) == said(twin.ask("describe", noise(1)))
    with pytest.raises(BadOption, match="this turn is still being answered"):
        chat.ask("And now?", on_text=lambda _: print(chat.ask("Well?")))
    assert said(chat.ask("And now?")) == said(twin.ask("And now?"))


def test_a_stream_that_is_left_half_way_changes_no_later_answer(loaded: Model) -> None:
    clip, other = noise(2), noise(3)
    wanted = [said(loaded.generate(each, "describe", **GREEDY)) for each in (clip, other)]
    for most in (0, 1, 2):
        stream: Any = loaded.stream(clip, "describe", **GREEDY)
        list(islice(stream, most))
        if most == 2:
            stream.close()
        else:
            del stream
        found = [said(loaded.generate(each, "describe", **GREEDY)) for each in (clip, other)]
        assert found == wanted
    both = [loaded.stream(each, "describe", **GREEDY) for each in (clip, other)]
    first = next(both[0])
    assert "".join(both[1]) == wanted[1][0]  # while the first waits for its reader
    assert first + "".join(both[0]) == wanted[0][0]
