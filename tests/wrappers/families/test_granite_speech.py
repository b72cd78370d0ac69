"""Granite Speech: clips of their own length, heard in blocks and windows as transformers does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from torch import Tensor

from alm.errors import BadPrompt
from alm.generation.model import Model
from tests.reference import DATA, DIGITS, LIBRISPEECH
from tests.whole.targets import check_fit, export_for, sized
from tests.wrappers.families import tiny_granite_speech
from tests.wrappers.families.tiny_granite_speech import ASK, GREEDY, RATE, SIZES, Tiny, features
from tests.wrappers.families.tiny_hf import batch, noise
from tests.wrappers.families.tiny_qwen3_asr import alike
from wrappers import open_checkpoint
from wrappers.checkpoint.weights.hollow import filled
from wrappers.frontends.paired_mel import PairedMel

Hear = Callable[[list[np.ndarray]], list[Tensor]]


@pytest.fixture(scope="module", params=SIZES)
def each(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    """A checkpoint of each kind."""
    return tiny_granite_speech.make(tmp_path_factory.mktemp("each"), **SIZES[request.param])


# --- what is heard


@pytest.fixture(scope="module")
def hear(each: Tiny) -> Hear:
    """Our parts in torch: clips [samples] -> embeddings [n, hidden]."""
    loaded = open_checkpoint(each.folder)
    mel, tower, qformer = (
        filled(loaded.part(name, "ort")) for name in ("mel", "granite_speech", "qformer")
    )

    def heard(clips: list[np.ndarray]) -> list[Tensor]:
        log_mel, pairs = mel(*batch(clips))
        rows, counts = qformer(tower(log_mel, pairs), pairs)
        return [row[:n] for row, n in zip(rows, counts.tolist(), strict=True)]

    return heard


# A pair of frames and less, ends beside a hop, a block and a window that are full and one more.
GOLDEN = np.load(DATA / "granite_speech.npz")  # see tests/data/README.md
LENGTHS = [257, 320, 479, 480, 16_000, 16_039, 63_839, 64_000, 64_160, 100_003, 480_000]


def test_clips_are_heard_as_transformers_hears_each_alone(each: Tiny, hear: Hear) -> None:
    clips = [noise(samples, seed) for seed, samples in enumerate(LENGTHS)]
    for clip, together in zip(clips, hear(clips), strict=True):
        assert len(together) == each.rows_of(len(clip))
        alike(together, each.heard(clip))
        alike(hear([clip])[0], each.heard(clip))


def test_speech_and_silence_are_heard_as_transformers_hears_them(each: Tiny, hear: Hear) -> None:
    speech = [soundfile.read(path, dtype="float32")[0] for path in LIBRISPEECH]
    for clip in (*speech, np.zeros(20_000, np.float32)):
        alike(hear([clip])[0], each.heard(clip))


def test_a_batch_of_transformers_hears_its_padding(each: Tiny) -> None:
    """Which is why each clip alone is the truth."""
    short, long = noise(3 * RATE), noise(5 * RATE, 1)
    rows = [features(np.pad(short, (0, 2 * RATE)), each.mels), features(long, each.mels)]
    heard = each.truth.get_audio_features(torch.cat(rows)).pooler_output
    alike(heard[1], each.heard(long))
    n = each.rows_of(len(short))
    assert float((heard[0][:n] - each.heard(short)).abs().max()) > 0.1


def test_the_spectrogram_is_torchaudios() -> None:
    """Every 173rd number of what transformers' extractor made with torchaudio 2.11.1."""
    mel = PairedMel(80, 600 * RATE)
    for samples in LENGTHS:
        clip = noise(samples)
        want = torch.from_numpy(GOLDEN[f"features_{samples}"])
        for made in (features(clip), mel(*batch([clip]))[0]):
            assert list(made.shape[1:]) == GOLDEN[f"shape_{samples}"].tolist()
            alike(made.reshape(-1)[::173], want)


# --- whole runs


@pytest.fixture(scope="module", params=sized(SIZES, 2))
def pair(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Tiny, Model]:
    """A checkpoint of each kind, each for another target and so in another dialect."""
    sizes, target = request.param
    folder = tmp_path_factory.mktemp(target)
    made = tiny_granite_speech.make(folder / "model", **SIZES[sizes])
    return made, export_for(target, folder / "model", folder)


@pytest.mark.parametrize("seconds", [1, 5, 29.99, 31, 75])
def test_a_clip_of_any_length_is_answered_as_transformers_does(
    pair: tuple[Tiny, Model], seconds: float
) -> None:
    tiny, model = pair
    clip = noise(int(seconds * RATE))
    answer = model.generate(clip, "transcribe", **GREEDY)
    assert answer.token_ids == tiny.answer((ASK, [clip], []))
    assert (answer.windows, answer.audio_tokens) == (1, tiny.rows_of(len(clip)))


def test_clips_of_different_lengths_are_answered_together_as_alone(
    pair: tuple[Tiny, Model],
) -> None:
    tiny, model = pair
    clips = [noise(3 * RATE), noise(20 * RATE + 77, 1), noise(9000, 2)]
    answers = model.generate(clips, " What is\nsaid? ", **GREEDY)
    wanted = [tiny.answer((" What is\nsaid? ", [clip], [])) for clip in clips]
    assert [answer.token_ids for answer in answers] == wanted


def test_two_clips_and_later_turns_are_answered_as_transformers_does(
    pair: tuple[Tiny, Model],
) -> None:
    tiny, model = pair
    speech = np.resize(soundfile.read(DIGITS[0], dtype="float32")[0], 6 * RATE)
    chat = model.chat(**GREEDY)
    turns: list[tuple[str, list[np.ndarray], list[int]]] = []
    for words, clips in (
        ("Which is longer?", [speech, noise(2 * RATE)]),
        ("And now?", [noise(5 * RATE, 1)]),
        (" Sure? ", []),
    ):
        turns.append((words, clips, []))
        answer = chat.ask(words, *clips)
        assert answer.token_ids == tiny.answer(*turns)
        turns[-1] = (words, clips, answer.token_ids)


def test_clips_shorter_than_a_transform_are_padded(pair: tuple[Tiny, Model]) -> None:
    tiny, model = pair
    for samples in (1, 256):
        clip = noise(samples) + np.float32(0.1)
        padded = np.pad(clip, (0, 257 - samples))
        answer = model.generate(clip, "transcribe", **GREEDY)
        assert answer.token_ids == tiny.answer((ASK, [padded], []))


def test_without_sound_the_base_llm_answers_or_none_does(pair: tuple[Tiny, Model]) -> None:
    tiny, model = pair
    if not model.manifest.facts.prompt.clip_first:
        answer = model.chat(**GREEDY).ask("What is that?")
        assert answer.token_ids == tiny.answer(("What is that?", [], []))
        return
    for prompt in ("What is that?", "transcribe"):
        with pytest.raises(BadPrompt, match="without a clip the original answers with others"):
            model.chat(**GREEDY).ask(prompt)
    chat = model.chat(**GREEDY)
    chat.ask("What is said?", noise(RATE))
    assert chat.ask("And what is that?").token_ids


def test_graphs_are_fit_for_their_target(pair: tuple[Tiny, Model]) -> None:
    check_fit(pair[1].folder)


def test_logits_are_those_of_transformers(each: Tiny) -> None:
    """Undivided: its head is the speech model's own, which knows no logits_scaling."""
    decoder: Any = filled(open_checkpoint(each.folder).part("decoder", "decomposed"))
    clip = noise(RATE)
    ids = torch.tensor([each.ids([(ASK, [clip], [])])])
    want = each.truth(input_ids=ids, input_features=features(clip, each.mels)).logits[:, -1:]
    embeds = each.truth.get_input_embeddings()(ids)
    embeds[ids == tiny_granite_speech.AUDIO] = each.heard(clip)
    cache = decoder.fresh(1, ids.shape[1])
    got = decoder(embeds, torch.tensor([0]), torch.tensor([ids.shape[1]]), *cache)[0]
    alike(got, want)
