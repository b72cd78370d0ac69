"""Conversations: several clips in a prompt, turns that compute only what is new."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import alm
from alm.decoder.decoder import assemble, woven
from alm.decoding.options import Options
from alm.errors import AlmError, BadAudio, BadOption, BadPrompt
from alm.generation.model import Model
from alm.timings import Stages
from tests.conftest import in_dialect
from tests.runtime.decoding import tiny_lm

GREEDY: dict[str, Any] = dict(num_beams=1, max_new_tokens=12)
RATE = 16_000


@pytest.fixture(scope="module", params=["standard", "decomposed", "ort"])
def loaded(
    request: pytest.FixtureRequest,
    artifacts: Path,
    checkpoint: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Model:
    """The tiny model, its decoder in each dialect."""
    return alm.load(in_dialect(request.param, artifacts, checkpoint, tmp_path_factory))


def noise(seconds: float, seed: int = 0) -> np.ndarray:
    made = np.random.default_rng(seed).standard_normal(int(seconds * RATE))
    return (0.1 * made).astype(np.float32)


def whole(
    model: Model, turns: Sequence[tuple[str, list[np.ndarray], list[int]]]
) -> list[np.ndarray]:
    """A conversation as one prompt, for `assemble`."""
    row: list[np.ndarray] = []
    heard = 0
    for i, (prompt, clips, answer) in enumerate(turns):
        built = model.parts.prompter.build(prompt, len(clips), heard, i == 0)
        row += woven(built.pieces, model.parts.audio_encoder.encode(clips, Stages())[0])
        row.append(np.array([token for token in answer if token not in model.parts.eos], np.int64))
        heard += len(clips)
    return row


def from_scratch(
    model: Model, turns: Sequence[tuple[str, list[np.ndarray], list[int]]], most: int
) -> list[int]:
    """Greedy answer to the last turn, all of the conversation before it in one prompt."""
    row = whole(model, turns)
    inputs, lengths = assemble(model.parts.table, [row])
    decoder = model.parts.decoder()
    decoder.start(1, inputs.shape[1] + most)
    logits, said = decoder.feed(inputs, lengths), []
    while len(said) < most:
        said.append(int(logits[0].argmax()))
        if said[-1] in model.parts.eos:
            break
        logits = decoder.step(np.array(said[-1:]))
    return said


@pytest.mark.parametrize("beams", [2, 4])
def test_beams_in_a_later_turn_are_those_of_the_whole_conversation_at_once(
    loaded: Model, beams: int
) -> None:
    options = Options(max_new_tokens=8, num_beams=beams)
    chat = loaded.chat(num_beams=beams, max_new_tokens=8, min_new_tokens=0)
    turns: list[tuple[str, list[np.ndarray], list[int]]] = []
    for prompt, clips in (("What?", [noise(1.5, 1)]), ("And?", [noise(2, 2)]), ("Sure?", [])):
        turns.append((prompt, clips, []))
        row = whole(loaded, turns)
        inputs, lengths = assemble(loaded.parts.table, [row])
        decoder = loaded.parts.decoder()
        decoder.start(1, inputs.shape[1] + 8)
        logits = decoder.feed(inputs, lengths)
        (alone,) = tiny_lm.answers(logits, decoder, options, eos_ids=loaded.parts.eos)
        answer = chat.ask(prompt, *clips).token_ids
        assert answer == alone.token_ids
        turns[-1] = (prompt, clips, answer)


def test_several_clips_in_one_prompt_are_heard_in_their_order(loaded: Model) -> None:
    a, b, prompt = noise(1.5, 1), noise(2, 2), "Compare <audio> with <audio>."
    said = loaded.generate([[a, b]], prompt, **GREEDY)[0]
    assert said.audio_tokens == 2 * loaded.generate(a, "x", **GREEDY).audio_tokens
    assert said.audio_seconds == 3.5 and said.windows == 1
    assert said.token_ids == from_scratch(
        loaded, [("Compare <audio> with <audio>.", [a, b], [])], 12
    )
    other = loaded.generate([[b, a]], "Compare <audio> with <audio>.", **GREEDY)[0]
    assert other.prompt_tokens == said.prompt_tokens


def test_a_batch_may_mix_prompts_with_one_several_and_no_clips(loaded: Model) -> None:
    a, b = noise(1.5, 1), noise(2, 2)
    asked: list[Any] = [[a, b], a, []]
    batch = loaded.generate(asked, ["Compare.", "asr", "Who are you?"], **GREEDY)
    alone = [
        loaded.generate([own], prompt, **GREEDY)[0]
        for own, prompt in zip(asked, ["Compare.", "asr", "Who are you?"], strict=True)
    ]
    assert [each.token_ids for each in batch] == [each.token_ids for each in alone]
    assert [each.audio_seconds for each in batch] == [3.5, 1.5, 0]


@pytest.mark.parametrize("beams", [1, 3])
def test_a_later_turn_is_answered_as_if_all_were_one_prompt(loaded: Model, beams: int) -> None:
    chat, a, b = loaded.chat(**GREEDY), noise(1.5, 1), noise(2, 2)
    turns: list[tuple[str, list[np.ndarray], list[int]]] = []
    for prompt, clips in (("describe", [a]), ("And this?", [b]), ("Are you sure?", [])):
        first = not turns
        said = chat.ask(prompt, *clips, num_beams=beams if first else 1)
        turns.append((prompt, clips, []))
        if not first:
            assert said.token_ids == from_scratch(loaded, turns, 12)
        turns[-1] = (prompt, clips, said.token_ids)


def test_only_what_is_new_is_computed(loaded: Model) -> None:
    chat = loaded.chat(**GREEDY)
    first = chat.ask("describe", noise(2))
    assert first.cached_tokens == 0
    again = chat.ask("And now?")
    new = again.prompt_tokens - again.cached_tokens
    assert again.cached_tokens >= first.prompt_tokens and new < 30
    assert again.prompt_tokens > first.prompt_tokens + len(first.token_ids) - 2
    known = chat.ask("And this one?", noise(2))
    assert known.audio_cached == 1 and not {"mel", "whisper"} & known.timings_ms.keys()


def test_the_beginning_of_a_prompt_is_computed_once(loaded: Model) -> None:
    prefixes, a = loaded.parts.prefixes, noise(1.5, 1)
    row = whole(loaded, [("describe", [a], [])])
    ids, inputs = prefixes.of(row, 99), assemble(loaded.parts.table, [row])[0]
    assert len(ids) >= 4 and not prefixes.of([row[0]], 99) and not prefixes.of(row[1:], 99)

    def fed(held: int, begun: dict[str, np.ndarray] | None) -> np.ndarray:
        decoder = loaded.parts.decoder()
        decoder.start(1, inputs.shape[1] + 1, held, begun)
        logits = decoder.feed(inputs[:, held:], np.array([inputs.shape[1] - held]))
        assert decoder.lengths.tolist() == [inputs.shape[1]]
        return np.stack([logits, decoder.step(logits.argmax(1))])

    loaded.generate(a, "describe", **GREEDY)
    known = prefixes.get(ids)
    assert known
    np.testing.assert_allclose(fed(len(ids), known), fed(0, None), atol=2e-5)
    said = loaded.generate(a, "describe", **GREEDY)
    assert said.prefix_tokens == len(ids) and said.cached_tokens == 0
    assert said.prompt_tokens == inputs.shape[1]
    assert said.token_ids == from_scratch(loaded, [("describe", [a], [])], 12)
    wrong = known | {next(iter(known)): np.zeros((1, 2, 3), np.float32)}
    prefixes.put(ids, wrong)  # as a file could hold it
    assert prefixes.get(ids) is None
    prefixes.put(ids, known)


def test_a_turn_that_fails_leaves_the_conversation_as_it_was(loaded: Model) -> None:
    chat, twin = loaded.chat(**GREEDY), loaded.chat(**GREEDY)
    for each in (chat, twin):
        each.ask("describe", noise(1.5, 1))

    def stop(piece: str) -> None:
        raise KeyboardInterrupt

    wrong: list[tuple[type[BaseException], dict[str, Any], list[Any]]] = [
        (BadPrompt, {"prompt": " "}, []),
        (BadPrompt, {"prompt": "word " * 9999}, []),
        (BadOption, {"prompt": "x", "num_beams": 0}, []),
        (AlmError, {"prompt": "x"}, ["no/such/file.wav"]),
        (BadAudio, {"prompt": "x"}, [np.zeros(0, np.float32)]),
        (KeyboardInterrupt, {"prompt": "And?", "on_text": stop}, [noise(2, 2)]),
    ]
    for error, said, sources in wrong:
        with pytest.raises(error):
            chat.ask(said.pop("prompt"), *sources, **said)
    answers = [each.ask("And this?", noise(2, 2)) for each in (chat, twin)]
    assert answers[0].token_ids == answers[1].token_ids
    assert answers[0].prompt_tokens == answers[1].prompt_tokens


def test_a_clip_too_long_to_stand_beside_others_is_refused(loaded: Model) -> None:
    window = int(loaded.manifest.facts.audio.window_samples)
    long = noise(window / RATE + 1)
    for asked in (
        lambda: loaded.chat().ask("x", long),
        lambda: loaded.generate([[long, long]], "x"),
    ):
        with pytest.raises(BadAudio, match="is longer than the .* s that this model hears"):
            asked()
    said = loaded.chat(truncate=True, **GREEDY).ask("describe", long)
    assert said.windows == 1 and "only the first" in said.notes[0]


def test_text_comes_piece_by_piece(loaded: Model) -> None:
    chat, pieces = loaded.chat(**GREEDY), []
    said = chat.ask("describe", noise(2), on_text=pieces.append)
    assert "".join(pieces) == said.text


def test_turns_that_are_told_are_those_that_were_answered(loaded: Model) -> None:
    a, b = noise(1.5, 1), noise(2, 2)
    asked = (("describe", [a]), ("And this?", [b]), ("Are you sure?", []))
    answers = ["two four", "", "no: <Speech>"]
    told = loaded.chat(**GREEDY)
    turns: list[tuple[str, list[np.ndarray], list[int]]] = []
    for (prompt, clips), answer in zip(asked, answers, strict=True):
        told.tell(prompt, *clips, answer=answer)
        turns.append((prompt, clips, loaded.parts.prompter.said(answer)))
    assert told.turns == 3
    said = told.ask("Why?")
    assert said.token_ids == from_scratch(loaded, [*turns, ("Why?", [], [])], 12)
    assert 0 < said.cached_tokens < said.prompt_tokens
    turns.append(("Why?", [], said.token_ids))
    assert told.ask("So?").token_ids == from_scratch(loaded, [*turns, ("So?", [], [])], 12)


def test_a_turn_that_cannot_be_told_changes_nothing(loaded: Model) -> None:
    chat = loaded.chat(**GREEDY)
    chat.tell("describe", noise(1, 3), answer="one")
    with pytest.raises(BadPrompt, match="context"):
        chat.tell("And?", answer="word " * 20_000)
    with pytest.raises(BadAudio):
        chat.tell("And?", b"no sound", answer="two")
    same = loaded.chat(**GREEDY)
    same.tell("describe", noise(1, 3), answer="one")
    assert chat.turns == 1 and chat.ask("Why?").token_ids == same.ask("Why?").token_ids


def test_an_answer_ends_at_the_first_stop_that_is_asked_for(loaded: Model) -> None:
    clip = noise(1.5, 4)
    whole = loaded.generate(clip, "describe", **GREEDY)
    stop = whole.text.strip()[2:4]
    said = loaded.generate(clip, "describe", stop=["~~", stop], **GREEDY)
    assert said.text == whole.text[: whole.text.index(stop)].strip()
    assert said.stop_reason == "stop_string" and len(said.token_ids) <= len(whole.token_ids)
    assert "".join(loaded.stream(clip, "describe", stop=[stop], **GREEDY)) == said.text
    chat = loaded.chat(stop=[stop], **GREEDY)  # what follows the stop was never said
    first = chat.ask("describe", clip)
    told = loaded.chat(stop=[stop], **GREEDY)
    told.tell("describe", clip, answer=first.text)
    assert chat.ask("Why?").prompt_tokens >= told.ask("Why?").prompt_tokens - 4


@pytest.mark.parametrize("name", ["language", "hypothesis", "system", "joins"])
def test_what_must_be_a_text_and_is_none_is_refused_by_name(loaded: Model, name: str) -> None:
    with pytest.raises(BadOption, match=f"^{name} is "):
        loaded.generate(noise(1), "describe", **{name: 7})  # pyright: ignore


@pytest.mark.parametrize("stop", ["text", None, 7, [""], [1], ["x"] * 17, ["x" * 257]])
def test_stops_that_are_none_are_refused(loaded: Model, stop: Any) -> None:
    with pytest.raises(BadOption, match="stop is up to 16 texts"):
        loaded.generate(noise(1), "describe", stop=stop)
