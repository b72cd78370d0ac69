"""Ultravox: a clip in its own length, windows joined, as the original hears and answers."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from tokenizers import Tokenizer
from torch import Tensor

from alm.errors import BadPrompt
from alm.facts import AudioFacts, TokenFacts
from alm.generation.model import Model
from alm.text.prompt import Prompter
from tests.reference import DIGITS, LIBRISPEECH
from tests.whole.targets import check_fit, export_for, sized
from tests.wrappers.families import tiny_ultravox
from tests.wrappers.families.tiny_hf import batch, noise
from tests.wrappers.families.tiny_qwen3_asr import alike
from tests.wrappers.families.tiny_ultravox import GOLDEN, GREEDY, RATE, SIZES, Original, make
from wrappers import open_checkpoint
from wrappers.checkpoint.plain_files import read_json
from wrappers.checkpoint.weights.hollow import filled

ROWS = 188  # of a window
Hear = Callable[[list[np.ndarray]], list[Tensor]]


def hearer(folder: Path, dialect: str = "ort") -> Hear:
    """Our parts in torch: clips [samples] -> embeddings [n, hidden]."""
    loaded = open_checkpoint(folder)
    mel, tower, projector = (
        filled(loaded.part(name, dialect)) for name in ("mel", "clip_whisper", "projector")
    )

    def heard(clips: list[np.ndarray]) -> list[Tensor]:
        log_mel, frames, kept, counts = mel(*batch(clips))
        made = []
        for start in range(0, log_mel.shape[2], 3000):
            there = ((n - start).clamp(0, 3000) for n in (frames, kept))
            made.append(tower(log_mel[:, :, start : start + 3000], *there))
        rows = projector(torch.cat(made, 1))
        return [row[:n] for row, n in zip(rows, counts.tolist(), strict=True)]

    return heard


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("ultravox") / "model", projector_ln_mid=True)


@pytest.fixture(scope="module")
def original(folder: Path) -> Original:
    return Original(folder)


@pytest.fixture(scope="module")
def hear(folder: Path) -> Hear:
    return hearer(folder)


# --- the original that is compared with


@pytest.mark.parametrize("name", SIZES)
def test_the_original_here_is_what_the_published_code_computed(name: str, tmp_path: Path) -> None:
    original, golden = Original(make(tmp_path / "model", **SIZES[name])), read_json(GOLDEN)[name]
    for samples, wanted in golden["heard"].items():
        rows = original.heard(noise(int(samples)))
        assert len(rows) == wanted["rows"]
        for row, numbers in ((rows[0], wanted["first"]), (rows[-1], wanted["last"])):
            torch.testing.assert_close(row[:4], torch.tensor(numbers), atol=1e-4, rtol=0)
        assert float(rows.abs().mean()) == pytest.approx(wanted["mean"], abs=1e-5)
    for asked in golden["answers"]:
        clips = [noise(samples, seed) for seed, samples in enumerate(asked["clips"])]
        said = (asked["words"], clips, [])
        assert len(original.asked([said])[0]) == asked["ids"]
        assert original.answer(said) == asked["tokens"]


# --- what is heard


@pytest.mark.parametrize(
    "samples",
    [320, 321, 479, 2560, 2561, 100_003, 479_839, 480_000, 480_001, 480_161, 481_121, 990_003],
)
def test_a_clip_is_heard_as_the_original_hears_it(
    original: Original, hear: Hear, samples: int
) -> None:
    clip = noise(samples)
    got = hear([clip])[0]
    windows, frames = divmod(-(-samples // 160), 3000)
    assert len(got) == windows * ROWS + -(-frames // 16)
    alike(got, original.heard(clip))


def test_clips_of_different_windows_are_heard_together_as_each_alone(
    original: Original, hear: Hear
) -> None:
    clips = [noise(70 * RATE + 161), 10 * noise(961, 1), noise(30 * RATE + 7, 2)]
    for got, clip in zip(hear(clips), clips, strict=True):
        alike(got, original.heard(clip))


def test_speech_and_silence_are_heard_as_the_original_hears_them(
    original: Original, hear: Hear
) -> None:
    speech = [soundfile.read(path, dtype="float32")[0] for path in LIBRISPEECH]
    for clip in (*speech, np.zeros(20_000, np.float32)):
        alike(hear([clip])[0], original.heard(clip))


def test_a_window_is_as_loud_as_the_whole_clip(original: Original, hear: Hear) -> None:
    quiet = 1e-4 * noise(5 * RATE, 1)
    clip = np.concatenate((10 * noise(30 * RATE), quiet))
    alike(hear([clip])[0], original.heard(clip))
    assert float((hear([clip])[0][ROWS:] - hear([quiet])[0]).abs().max()) > 0.1


@pytest.mark.parametrize("dialect", ["decomposed", "standard", "ort"])
@pytest.mark.parametrize("name", SIZES)
def test_every_form_is_heard_as_the_original_hears_it(
    name: str, dialect: str, tmp_path: Path
) -> None:
    made = make(tmp_path / "model", **SIZES[name])
    clips = [noise(samples) for samples in (5000, 30 * RATE + 481)]
    for got, clip in zip(hearer(made, dialect)(clips), clips, strict=True):
        alike(got, Original(made).heard(clip))


# --- whole runs


@pytest.fixture(scope="module", params=sized(SIZES, 8))
def pair(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Original, Model]:
    """A checkpoint of each kind, each for another target and so in another dialect."""
    sizes, target = request.param
    folder = tmp_path_factory.mktemp(target)
    made = make(folder / "model", **SIZES[sizes])
    return Original(made), export_for(target, folder / "model", folder)


def rows(original: Original, clip: np.ndarray) -> int:
    return len(original.heard(clip))


@pytest.mark.parametrize("seconds", [1, 5, 29.99, 31, 75])
def test_a_clip_of_any_length_is_answered_as_the_original_does(
    pair: tuple[Original, Model], seconds: float
) -> None:
    original, model = pair
    clip = noise(int(seconds * RATE))
    answer = model.generate(clip, "transcribe", **GREEDY)
    words = "Repeat the following text, without any explanation: <|audio|>"
    assert answer.token_ids == original.answer((words, [clip], []))
    assert answer.windows == 1
    assert answer.audio_tokens == rows(original, clip)


def test_clips_of_different_lengths_are_answered_together_as_alone(
    pair: tuple[Original, Model],
) -> None:
    original, model = pair
    clips = [noise(3 * RATE), noise(40 * RATE + 77, 1), noise(1, 2)]
    answers = model.generate(clips, " What is\nsaid? ", **GREEDY)
    wanted = [original.answer((" What is\nsaid? ", [clip], [])) for clip in clips]
    assert [answer.token_ids for answer in answers] == wanted


def test_later_turns_with_clips_are_answered_as_the_original_does(
    pair: tuple[Original, Model],
) -> None:
    original, model = pair
    long = np.resize(soundfile.read(DIGITS[0], dtype="float32")[0], 33 * RATE)
    chat = model.chat(**GREEDY)
    turns: list[tuple[str, list[np.ndarray], list[int]]] = []
    asked = (
        ("Hello.", "Hello.", []),
        ("Which <audio> is louder, this or\n <audio> ", None, [long, noise(5000)]),
        (" And now? ", None, [noise(RATE, 3)]),
        ("<audio>", "<|audio|>", [noise(RATE, 4)]),
        ("Sure?", None, []),
    )
    for words, theirs, clips in asked:
        turns.append((theirs or words.replace("<audio>", "<|audio|>"), clips, []))
        answer = chat.ask(words, *clips)
        assert answer.token_ids == original.answer(*turns)
        turns[-1] = (*turns[-1][:2], answer.token_ids)


def test_penalties_see_what_the_original_lets_them_see(pair: tuple[Original, Model]) -> None:
    original, model = pair
    clip = noise(2 * RATE, 5)
    for penalty in (1.0, 2.5):
        options: dict[str, Any] = dict(repetition_penalty=penalty)
        answer = model.generate(clip, "respond", **GREEDY, **options)
        assert answer.token_ids == original.answer(("<|audio|>", [clip], []), **options)


# --- prompts


def test_a_clip_stands_where_the_pipeline_puts_it(folder: Path, original: Original) -> None:
    made = open_checkpoint(folder)
    tokenizer = Tokenizer.from_str(made.tokenizer_json)
    prompter = Prompter(tokenizer, made.facts.prompt, made.facts.tokens)
    clip = noise(RATE)
    embeds = original.heard(clip).numpy()
    for ours, theirs, count in (
        ("What is said?", "What is said? <|audio|>", 1),
        ("  What is\n", "  What is\n <|audio|>", 1),
        ("<audio>", "<|audio|>", 1),
        (" <audio> Both? <audio>\n", " <|audio|> Both? <|audio|>\n", 2),
        ("Both?", "Both? <|audio|><|audio|>", 2),
        ("  None? ", "  None? ", 0),
        ("transcribe", "Repeat the following text, without any explanation: <|audio|>", 1),
    ):
        ids = prompter.ids(prompter.build(ours, count), [embeds] * count)
        assert ids == original.asked([(theirs, [clip] * count, [])])[0], ours


def test_the_mark_of_the_original_is_no_word_of_a_user(pair: tuple[Original, Model]) -> None:
    with pytest.raises(BadPrompt, match=r"may not hold <\|audio\|>"):
        pair[1].generate(noise(RATE), "Say <|audio|> again")


def test_graphs_are_fit_for_their_target(pair: tuple[Original, Model]) -> None:
    check_fit(pair[1].folder)


# --- folders


def test_the_manifest_states_what_is_heard(folder: Path) -> None:
    made = open_checkpoint(folder)
    assert made.roles == {
        **{"mel": "frontend", "clip_whisper": "encoder"},
        **{"projector": "bridge", "decoder": "decoder"},
    }
    assert made.facts.audio == AudioFacts(RATE, "mean", 320, 30 * RATE, "joined")
    assert made.facts.dimensions.audio_tokens == ROWS
    assert made.facts.tokens == TokenFacts(None, (2,), penalize_prompt=True, audio=2)
    assert made.facts.generation["repetition_penalty"] == 1.1
    assert not made.notes


def test_pieces_are_found_wherever_they_lie(tmp_path: Path) -> None:
    """In the folder, beside it, or at a path that the config names."""
    clip = noise(5000)
    made = make(tmp_path / "a" / "model", tiny_ultravox.BARE)
    wanted = hearer(made)([clip])[0]
    tables = [open_checkpoint(made).embedding()]
    for name in ("Llama-tiny", "whisper-tiny"):
        shutil.move(tmp_path / "a" / name, made / name)
    alike(hearer(made)([clip])[0], wanted)
    tables.append(open_checkpoint(made).embedding())
    shutil.move(made / "Llama-tiny", tmp_path / "llm")
    tiny_ultravox.said(made, text_model_id=str(tmp_path / "llm"), audio_model_id="whisper-tiny")
    alike(hearer(made)([clip])[0], wanted)
    tables.append(open_checkpoint(made).embedding())
    assert all(torch.equal(table, tables[0]) for table in tables)


def test_the_same_weights_in_any_layout_are_the_same_model(tmp_path: Path) -> None:
    clip = noise(5000)
    made = [make(tmp_path / layout / "model", layout) for layout in tiny_ultravox.LAYOUTS]
    heard = [hearer(each)([clip])[0] for each in made]
    states = [filled(open_checkpoint(each).part("decoder", "ort")).state_dict() for each in made]
    for got, state in zip(heard, states, strict=True):
        alike(got, heard[0])
        assert all(torch.equal(state[name], value) for name, value in states[0].items())


def test_another_folder_is_another_fingerprint(tmp_path: Path) -> None:
    made = make(tmp_path / "model")
    before = open_checkpoint(made).facts.source["fingerprint"]
    (tmp_path / "Llama-tiny" / "more.txt").write_text("more")
    assert open_checkpoint(made).facts.source["fingerprint"] != before


def test_an_llm_without_weights_of_words_lends_its_tokenizer(tmp_path: Path) -> None:
    made = make(tmp_path / "model")
    wanted = open_checkpoint(made).facts
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.move(made / name, tmp_path / "Llama-tiny" / name)
    facts = open_checkpoint(made).facts
    assert (facts.prompt, facts.tokens) == (wanted.prompt, wanted.tokens)


def test_an_old_gemma_multiplies_what_it_hears(tmp_path: Path) -> None:
    """transformers 4 scaled all that goes in, 5 the words alone: the config says who wrote it."""
    clip, llm = noise(5000), dict(model_type="gemma2", sliding_window=64)
    for layout, version, scale in ((True, "4.51.3", 36**0.5), (False, "5.1.0", 1.0)):
        made = make(
            tmp_path / version / "model", llm=llm, projector_ln_mid=layout,
            transformers_version=version,
        )  # fmt: skip
        alike(hearer(made)([clip])[0], Original(made).heard(clip) * scale)


def test_the_note_tells_of_code_that_heard_otherwise(tmp_path: Path) -> None:
    made = make(tmp_path / "model")
    code = made / "ultravox_processing.py"
    code.write_text("raise SystemExit  # data['audio_len']\n")
    (note,) = open_checkpoint(made).notes
    assert "is older than version 0.5" in note
    code.write_text("raise SystemExit  # data['audio_batch_size']\n")
    assert not open_checkpoint(made).notes
