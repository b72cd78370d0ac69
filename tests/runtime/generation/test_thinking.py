"""A model that thinks: its thought beside the answer, in pieces, in JSON and in later turns.

The tiny model says what it says; what of that counts as its thought is decided by the marks, which
are chosen from the text itself.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import alm
from alm.artifacts.manifest import NAME
from alm.decoder.decoder import assemble
from alm.generation.model import Model
from alm.generation.turn import Question
from alm.text.thoughts import LEFT_OUT
from alm.timings import Stages
from tests.runtime.cli.commands import Capture, alm_run

GREEDY: dict[str, Any] = dict(num_beams=1, max_new_tokens=20, min_new_tokens=20)
BEGUN = "<t>"  # of the marks, which the turn ends with
PROMPT, SECOND = "Listen well.", "And now?"


def noise() -> np.ndarray:
    return (0.1 * np.random.default_rng(1).standard_normal(24_000)).astype(np.float32)


def told(folder: Path, **said: Any) -> Model:
    """The model, its manifest's prompt changed."""
    file = folder / NAME
    plain = json.loads(file.read_text())
    plain["prompt"] |= said
    file.write_text(json.dumps(plain))
    return alm.load(folder)


@pytest.fixture(scope="module")
def folder(artifacts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy whose turn begins a thought."""
    copy = Path(shutil.copytree(artifacts, tmp_path_factory.mktemp("thinking") / "model"))
    turn = json.loads((copy / NAME).read_text())["prompt"]["turn"]
    told(copy, turn=turn + BEGUN, fleeting=BEGUN, thought=f"{BEGUN}{{}}never said")
    return copy


@pytest.fixture(scope="module")
def raw(folder: Path) -> str:
    """All that the model says, which does not end its thought."""
    answer = alm.load(folder).generate(noise(), PROMPT, **GREEDY)
    assert answer.text == "" and answer.thinking and answer.stop_reason == "length"
    assert any("while the model was thinking" in note for note in answer.notes)
    return answer.thinking


@pytest.fixture(scope="module")
def end(raw: str) -> str:
    """A text in the middle of what it says."""
    middle = len(raw) // 2
    at = next(i for i in range(middle, len(raw)) if raw.find(raw[i : i + 3]) == i)
    return raw[at : at + 3]


def test_the_thought_is_beside_the_answer(folder: Path, raw: str, end: str) -> None:
    model = told(folder, thought=f"{BEGUN}{{}}{end}")
    thought, _, answer = raw.partition(end)
    got = model.generate(noise(), PROMPT, **GREEDY)
    assert (got.thinking, got.text) == (thought.strip(), answer.strip())
    assert got.to_json()["thinking"] == got.thinking and answer.strip()
    pieces = list(model.stream(noise(), PROMPT, **GREEDY))
    assert "".join(pieces) == got.text and len(pieces) > 1
    shown = "".join(model.stream(noise(), PROMPT, show_thinking=True, **GREEDY))
    assert shown == f"{BEGUN}{thought}{end}{answer}".strip()
    beams: dict[str, Any] = GREEDY | dict(num_beams=3)
    searched = model.generate(noise(), PROMPT, **beams)
    assert "".join(model.stream(noise(), PROMPT, **beams)) == searched.text
    both = model.generate([noise(), noise()[:9000]], PROMPT, **GREEDY)
    assert (both[0].thinking, both[0].text) == (got.thinking, got.text)


def test_the_command_prints_the_answer_and_the_thought_where_it_is_asked_for(
    folder: Path, end: str, clip: Path, capfd: Capture
) -> None:
    model = told(folder, thought=f"{BEGUN}{{}}{end}")
    said = model.generate(clip, PROMPT, **GREEDY)
    length = ("--num-beams", "1", "--max-new-tokens", "20", "--min-new-tokens", "20")
    words = ("--engine", folder, clip, PROMPT, *length)
    assert said.thinking
    for more, text in (((), said.text), (("--show-thinking",), None)):
        assert alm_run(*words, *more) == 0
        out = capfd.readouterr().out
        if text is None:
            assert out.startswith(BEGUN) and said.thinking in out and out.endswith(said.text + "\n")
        else:
            assert out == text + "\n"
    assert alm_run(*words, "--json") == 0
    plain = json.loads(capfd.readouterr().out)
    assert (plain["text"], plain["thinking"]) == (said.text, said.thinking)


def test_windows_of_a_recording_have_a_thought_each(folder: Path, end: str) -> None:
    model = told(folder, thought=f"{BEGUN}{{}}{end}")
    got = model.generate(np.concatenate([noise()] * 4), PROMPT, **GREEDY)
    assert got.windows > 1 and got.thinking is not None
    alone = "".join(model.stream(np.concatenate([noise()] * 4), PROMPT, **GREEDY))
    assert alone == got.text
    assert "\n".join(segment.text for segment in got.segments if segment.text) == got.text


def second_turn(model: Model, first: list[int]) -> list[int]:
    """Greedy answer to the second turn, all before it in one prompt as the manifest writes it."""
    facts, encode = model.manifest.facts, model.parts.tokenizer.encode
    text = facts.prompt.turn.replace("{clips}", facts.prompt.clip).replace("{}", PROMPT)
    before, behind = text.split(facts.prompt.placeholder)
    raw = model.parts.tokenizer.decode(first, skip_special_tokens=True)
    close, rest = facts.prompt.thought.partition("{}")[2], raw
    if facts.prompt.left_out and close in raw:
        rest = raw.rpartition(close)[2]
        strips = {"lines": rest.lstrip("\n"), "spaces": rest.lstrip(), "words": rest.strip()}
        rest = strips.get(facts.prompt.left_out, rest)
    said = encode(rest, add_special_tokens=False).ids if rest != raw else first
    said = [token for token in said if token not in model.parts.eos]
    new = facts.prompt.end + facts.prompt.turn.replace("{clips}", "").replace("{}", SECOND)
    row = [
        np.array([facts.tokens.bos, *encode(before, add_special_tokens=False).ids]),
        *model.parts.audio_encoder.encode([noise()], Stages())[0],
        np.array(encode(behind.removesuffix(BEGUN), add_special_tokens=False).ids),
        np.array(said, np.int64),
        np.array(encode(new, add_special_tokens=False).ids),
    ]
    inputs, lengths = assemble(model.parts.table, [row])
    decoder = model.parts.decoder()
    decoder.start(1, inputs.shape[1] + 20)
    logits, answer = decoder.feed(inputs, lengths), list[int]()
    while len(answer) < 20:
        logits[:, list(model.parts.eos)] = -np.inf  # as min_new_tokens has it
        answer.append(int(logits[0].argmax()))
        logits = decoder.step(np.array(answer[-1:]))
    return answer


@pytest.mark.parametrize("left_out", ["", *LEFT_OUT])
def test_a_later_turn_is_answered_as_if_the_thought_had_not_been(
    folder: Path, end: str, left_out: str
) -> None:
    model = told(folder, thought=f"{BEGUN}{{}}{end}", left_out=left_out)
    for beams in (1, 3):
        chat = model.chat(**GREEDY)
        first = chat.ask(PROMPT, noise(), num_beams=beams)
        left = chat.turn([Question(SECOND, [])], {}, listening=True, remember=True)
        left.close()  # a turn that is left changes nothing
        answer = chat.ask(SECOND)
        assert answer.token_ids == second_turn(model, first.token_ids), (left_out, beams)
        assert 0 < answer.cached_tokens < first.prompt_tokens + len(first.token_ids)
        assert chat.ask("Why?").prompt_tokens > answer.prompt_tokens


def test_an_unclosed_thought_stays_as_it_is_without_what_began_it(folder: Path) -> None:
    model = told(folder, thought=f"{BEGUN}{{}}never said", left_out="rest")
    chat = model.chat(**GREEDY)
    first = chat.ask(PROMPT, noise())
    assert first.text == "" and first.thinking
    assert chat.ask(SECOND).token_ids == second_turn(model, first.token_ids)


def test_a_model_that_marks_no_thoughts_has_none(artifacts: Path) -> None:
    answer = alm.load(artifacts).generate(noise(), PROMPT, show_thinking=True, **GREEDY)
    assert answer.thinking is None and "thinking" not in answer.to_json()
