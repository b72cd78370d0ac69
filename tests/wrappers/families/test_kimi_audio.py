"""Kimi-Audio against what the authors' code computed: stages, prompts, every answer.

tests/data/README.md says how the references were made.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import soundfile

import alm
from alm import lint
from alm.decoder.decoder import assemble, woven
from alm.decoding import search
from alm.decoding.options import Options
from alm.generation.model import Model
from tests.conftest import run_export
from tests.products import some
from tests.reference import LIBRISPEECH
from tests.wrappers.families.tiny_kimi import GOLDEN, MODEL

PLAIN: dict[str, Any] = json.loads((GOLDEN / "sequences.json").read_text())
SEQUENCES: dict[str, Any] = PLAIN["sequences"]
IDS = PLAIN["special_ids"]
BLANK, STEPS = IDS["kimia_text_blank"], PLAIN["max_new_tokens"]
TRUTH = np.load(GOLDEN / "oracle.npz")
DIALECTS = ("decomposed", "standard", "ort")
TARGETS = {"trt-jetpack6": "decomposed", "trt-jetpack7": "standard", "trt-rtx": "standard"}
# Those of which every answer before the last message is a text, or there is none.
ASKED = [name for name in SEQUENCES if name != "audio_history"]
RATE = 16_000


def clip(letter: str) -> np.ndarray:
    """A clip as the authors' code loads it: that of 8 kHz is resampled by soxr."""
    if f"{letter}.pcm" in TRUTH:
        return TRUTH[f"{letter}.pcm"]
    return soundfile.read(GOLDEN / PLAIN["clips"][letter], dtype="float32")[0]


# test_kimi_sizes.py has whole runs in each, of models that the authors' code answered too.
@pytest.fixture(scope="module", params=some(DIALECTS, "ort"))
def model(request: pytest.FixtureRequest, tmp_path_factory: Any) -> Model:
    folder = tmp_path_factory.mktemp(request.param)
    words = ("--precision", "fp32", "--dialect", request.param, "--no-simplify")
    run_export("--model", GOLDEN / MODEL, *words, "--dynamic-batch", "--out", folder)
    for target, dialect in TARGETS.items():
        if dialect == request.param:
            verdict = lint.lint(folder, target)
            assert len(verdict.parts) == 7 and not verdict.refused, verdict.findings
    return alm.load(folder, "cpu")


def heard(model: Model, *clips: np.ndarray) -> dict[str, np.ndarray]:
    """Every tensor on the way to the embeddings of a batch of clips."""
    lengths = np.array([len(pcm) for pcm in clips])
    pcm = np.stack([np.pad(pcm, (0, lengths.max() - len(pcm))) for pcm in clips])
    return model.parts.pipeline.forward({"pcm": pcm, "pcm_lengths": lengths})


def off(ours: np.ndarray, name: str) -> float:
    wanted = TRUTH[name]
    assert ours.shape == wanted.shape, name
    return float(np.abs(ours - wanted).max())


@pytest.mark.parametrize("letter", PLAIN["clips"])
def test_every_stage_is_that_of_the_authors_code(model: Model, letter: str) -> None:
    made = heard(model, clip(letter))
    codes = TRUTH[f"{letter}.codes"]
    count = len(codes)
    assert made["audio_embeds_lengths"].tolist() == [count]
    assert made["audio_ids"].dtype == np.int64
    assert made["audio_ids"][0].tolist() == codes.tolist()
    frames = made["speech"][0, : 4 * count].reshape(count, -1)
    windows = TRUTH[f"{letter}.mel_every16"]
    mels = made["log_mel"][0].reshape(128, len(windows), 3000).transpose(1, 0, 2)
    assert off(mels[:, :, ::128], f"{letter}.mel_every16") < 1e-4
    stages = {"glm_mel": made["voice_mel"], "glm_hidden": made["voice"][0], "continuous": frames}
    for stage, ours in stages.items():
        for name, kept in ((stage, ours), (f"{stage}_every16", ours[::16])):
            if f"{letter}.{name}" in TRUTH:
                assert off(kept, f"{letter}.{name}") < 1e-4, name


def test_a_ragged_batch_is_each_clip_alone(model: Model) -> None:
    clips = [clip("e"), clip("d"), clip("a"), np.zeros(1, np.float32)]
    together = heard(model, *clips)
    for i, pcm in enumerate(clips):
        alone = heard(model, pcm)
        count = int(alone["audio_embeds_lengths"][0])
        assert together["audio_embeds_lengths"][i] == count == -(-len(pcm) // 1280)
        ids = together["audio_ids"][i, :count]
        assert ids.tolist() == alone["audio_ids"][0, :count].tolist()
        rows = together["audio_embeds"][i, :count] - alone["audio_embeds"][0, :count]
        assert np.abs(rows).max() < 1e-4


def prompted(
    model: Model, messages: list[dict[str, Any]], read: Callable[[str], np.ndarray] = clip
) -> list[np.ndarray]:
    """A conversation as a row for `assemble`; its answers stand in it as they are given."""
    prompter, row = model.parts.prompter, list[np.ndarray]()
    words, clips, turns, earlier = "", list[str](), 0, 0
    for message in [*messages, {"role": "assistant"}]:
        if message["role"] == "user":
            audio = message["message_type"] == "audio"
            words += "<audio>" if audio else message["content"]
            clips += [message["content"]] if audio else []
            continue
        asked = prompter.build(words, len(clips), earlier, first=not turns, verbatim=True)
        embeds = []
        for letter in clips:
            made = heard(model, read(letter))
            embeds.append(made["audio_embeds"][0, : int(made["audio_embeds_lengths"][0])])
        row += woven(asked.pieces, embeds)
        if "content" in message:
            row.append(np.array(prompter.said(message["content"]), np.int64))
        words, clips, turns, earlier = "", [], turns + 1, earlier + len(clips)
    return row


def answered(
    model: Model, row: list[np.ndarray], asked: dict[str, Any], wanted: np.ndarray
) -> list[int]:
    """Greedy tokens to a prompt under the original's options; `wanted` are its first logits."""
    embeds, lengths = assemble(model.parts.table, [row])
    decoder = model.parts.decoder()
    decoder.start(1, embeds.shape[1] + STEPS)
    logits = decoder.feed(embeds, lengths)
    assert np.abs(logits[0] - wanted).max() < 1e-3
    options = Options(
        max_new_tokens=STEPS,
        repetition_penalty=asked.get("text_repetition_penalty", 1.0),
        repetition_window=asked.get("text_repetition_window_size", 0),
    )
    ended: dict[int, Any] = {}
    for step in search.decode(
        logits, decoder, options, eos_ids=model.parts.eos, lengths=[embeds.shape[1]]
    ):
        ended.update(step.ended)
    ids = list(map(int, ended[0].token_ids))
    return ids[:-1] if ids[-1] in model.parts.eos else ids


@pytest.mark.parametrize("name", ASKED)
def test_every_sequence_is_that_of_the_authors_code(model: Model, name: str) -> None:
    said = SEQUENCES[name]
    row = prompted(model, said["messages"])
    audio, text, mask = (TRUTH[f"{name}.{k}"] for k in ("audio_ids", "text_ids", "is_continuous"))
    assert not ((audio != BLANK) & (text != BLANK) & ~mask).any()  # one stream stands for both
    ids = np.concatenate([piece for piece in row if piece.ndim == 1])
    assert ids.tolist() == np.where(audio != BLANK, audio, text)[~mask].tolist()
    if f"{name}.inputs_embeds" in TRUTH:
        embeds, _ = assemble(model.parts.table, [row])
        assert off(embeds[0], f"{name}.inputs_embeds") < 1e-4
    assert answered(model, row, said["options"], TRUTH[f"{name}.logits_first"]) == said["greedy"]


@pytest.mark.parametrize("name", [n for n in ASKED if not n.startswith("two_turns")])
def test_a_question_is_answered_as_the_authors_code_does(model: Model, name: str) -> None:
    said = SEQUENCES[name]
    marked = [m["message_type"] == "audio" for m in said["messages"]]
    words = "".join(
        "<audio>" if audio else message["content"]
        for audio, message in zip(marked, said["messages"], strict=True)
    )
    clips = [clip(m["content"]) for m in said["messages"] if m["message_type"] == "audio"]
    options: dict[str, Any] = {"max_new_tokens": STEPS}
    if said["options"]:
        options |= {"repetition_penalty": 1.4, "repetition_window": 4}
    answer = model.chat(verbatim=True).ask(words, *clips, **options)
    assert answer.prompt_tokens == len(TRUTH[f"{name}.audio_ids"])
    assert answer.token_ids == said["greedy"]
    assert answer.text == said["text"]
    if not marked[0] and not said["options"]:  # where a turn has its clips without a mark
        plain = model.generate(clips[0], said["messages"][0]["content"], max_new_tokens=STEPS)
        assert plain.token_ids == said["greedy"]


def test_a_second_turn_is_the_whole_conversation_computed_at_once(model: Model) -> None:
    talk = model.chat(verbatim=True)
    first = talk.ask("what is said?", clip("e"), max_new_tokens=8)
    second = talk.ask("<audio>and here", clip("a"), max_new_tokens=12)
    pieces = prompted(
        model,
        [
            {"role": "user", "message_type": "text", "content": "what is said?"},
            {"role": "user", "message_type": "audio", "content": "e"},
            {"role": "assistant"},
            {"role": "user", "message_type": "audio", "content": "a"},
            {"role": "user", "message_type": "text", "content": "and here"},
        ],
    )
    at = next(i for i, piece in enumerate(pieces) if piece.ndim == 2) + 2
    pieces.insert(at, np.array(first.token_ids, np.int64))
    embeds, lengths = assemble(model.parts.table, [pieces])
    assert second.prompt_tokens == lengths[0] and second.cached_tokens > 0
    decoder = model.parts.decoder()
    decoder.start(1, embeds.shape[1] + 12)
    logits, ids = decoder.feed(embeds, lengths), list[int]()
    while len(ids) < 12 and (not ids or ids[-1] != IDS["kimia_text_eos"]):
        ids.append(int(logits[0].argmax()))
        logits = decoder.step(np.array(ids[-1:]))
    assert [i for i in ids if i != IDS["kimia_text_eos"]] == second.token_ids


def test_speech_silence_and_no_clip_are_answered(model: Model) -> None:
    speech = model.generate(LIBRISPEECH[0], "transcribe", max_new_tokens=8)
    pcm = soundfile.read(LIBRISPEECH[0])[0]
    assert speech.audio_tokens == -(-len(pcm) // 1280)
    silence = model.generate(np.zeros(RATE, np.float32), "chat", max_new_tokens=8)
    assert silence.audio_tokens == 13
    assert model.chat().ask("hello there", max_new_tokens=8).token_ids


def test_an_answer_that_was_spoken_is_one_stream_while_its_text_is_short(model: Model) -> None:
    """Of six tokens or fewer, the blanks before its sound; the runtime asks for no such history."""
    audio, text = TRUTH["audio_history.audio_ids"], TRUTH["audio_history.text_ids"]
    mask = TRUTH["audio_history.is_continuous"]
    assert not ((audio != BLANK) & (text != BLANK) & ~mask).any()
    row, embeds = model.parts.table(np.where(audio != BLANK, audio, text)[None])[0].copy(), []
    for letter in "ca":
        made = heard(model, clip(letter))
        embeds.append(made["audio_embeds"][0, : int(made["audio_embeds_lengths"][0])])
    row[mask] = np.concatenate(embeds)
    said, logits = SEQUENCES["audio_history"], TRUTH["audio_history.logits_first"]
    assert answered(model, [row], said["options"], logits) == said["greedy"]
