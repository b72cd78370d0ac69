"""Qwen2.5-Omni's thinker: clips in windows of 2 s that are heard as one, as transformers does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from torch import Tensor

import alm
from alm.generation.model import Model
from tests.conftest import run_export
from tests.reference import DIGITS, LIBRISPEECH
from tests.whole.targets import check_fit, export_for, sized
from tests.wrappers.families import tiny_qwen2_5_omni
from tests.wrappers.families.tiny_hf import batch, noise
from tests.wrappers.families.tiny_qwen2_5_omni import GREEDY, RATE, Said, Tiny
from tests.wrappers.families.tiny_qwen3_asr import alike
from wrappers import open_checkpoint
from wrappers.checkpoint.weights.hollow import filled
from wrappers.encoders.qwen2_5_omni import rows_of

ASK = "Transcribe the speech."
SIZES: dict[str, dict[str, Any]] = {
    "own head, grouped heads": {},
    "tied, odd sizes, pairs across windows": dict(
        tied=True, hidden_size=36, intermediate_size=52, num_attention_heads=2,
        num_key_value_heads=1,
        rope_parameters=dict(rope_type="default", rope_theta=5e5, mrope_section=[4, 2, 3]),
        tower=dict(num_mel_bins=17, d_model=30, encoder_attention_heads=3, n_window=25,
                   encoder_layers=3, activation_function="relu"),
    ),
    "yarn, a sliding layer, wide heads, short windows": dict(
        head_dim=20, use_sliding_window=True, sliding_window=50, max_window_layers=1,
        rope_parameters=dict(rope_type="yarn", rope_theta=1e4, factor=4.0, mrope_section=[2, 5, 3],
                             original_max_position_embeddings=512),
        tower=dict(n_window=7, encoder_layers=1, d_model=20, max_source_positions=7),
    ),
}  # fmt: skip
Hear = Callable[[list[np.ndarray]], list[Tensor]]


@pytest.fixture(scope="module", params=SIZES)
def tiny(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    return tiny_qwen2_5_omni.make(tmp_path_factory.mktemp("omni"), **SIZES[request.param])


# --- what is heard


@pytest.fixture(scope="module")
def hear(tiny: Tiny) -> Hear:
    """Our parts in torch: clips [samples] -> embeddings [n, hidden]."""
    loaded = open_checkpoint(tiny.folder)
    mel, tower, projector = (
        filled(loaded.part(name, "ort")) for name in ("mel", "qwen2_5_omni", "projector")
    )

    def heard(clips: list[np.ndarray]) -> list[Tensor]:
        speech, counts = tower(*mel(*batch(clips)))
        rows = projector(speech)
        return [row[:n] for row, n in zip(rows, counts.tolist(), strict=True)]

    return heard


@pytest.mark.parametrize(
    "samples", [400, 640, 641, 8160, 31_999, 32_000, 32_001, 32_161, 100_003, 496_000, 1_600_000]
)
def test_a_clip_is_heard_as_transformers_hears_it(tiny: Tiny, hear: Hear, samples: int) -> None:
    clip = noise(samples)
    got = hear([clip])[0]
    assert len(got) == rows_of(-(-samples // 160))
    alike(got, tiny.heard(clip))


def test_clips_are_heard_together_as_each_alone(tiny: Tiny, hear: Hear) -> None:
    clips = [noise(7 * RATE + 3), 20 * noise(8000, 1), noise(3 * RATE + 170, 2)]
    for got, clip in zip(hear(clips), clips, strict=True):
        alike(got, tiny.heard(clip))


def test_speech_and_silence_are_heard_as_transformers_hears_them(tiny: Tiny, hear: Hear) -> None:
    speech = [soundfile.read(path, dtype="float32")[0] for path in LIBRISPEECH]
    for clip in (*speech, np.zeros(20_000, np.float32)):
        alike(hear([clip])[0], tiny.heard(clip))


def test_the_loudest_frame_may_be_behind_a_clip(tiny: Tiny, hear: Hear) -> None:
    clip = 1e-4 * noise(100 * 160)
    clip[-1] = 1.0
    alike(hear([clip])[0], tiny.heard(clip))
    longer = noise(3 * RATE, 1)
    alike(hear([longer, clip])[1], tiny.heard(clip))


# --- whole runs


@pytest.fixture(scope="module", params=sized(SIZES, 5))
def pair(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Tiny, Model]:
    """A checkpoint of each kind, each for another target and so in another dialect."""
    sizes, target = request.param
    folder = tmp_path_factory.mktemp(target)
    made = tiny_qwen2_5_omni.make(folder / "model", **SIZES[sizes])
    return made, export_for(target, folder / "model", folder)


@pytest.mark.parametrize("seconds", [1, 5, 29.99, 31, 75])
def test_a_clip_of_any_length_is_answered_as_transformers_does(
    pair: tuple[Tiny, Model], seconds: float
) -> None:
    tiny, model = pair
    clip = noise(int(seconds * RATE))
    answer = model.generate(clip, "transcribe", **GREEDY)
    assert answer.token_ids == tiny.answer((ASK, [clip], []))
    assert answer.windows == 1
    assert answer.audio_tokens == rows_of(-(-len(clip) // 160))


def test_clips_of_different_lengths_are_answered_together_as_alone(
    pair: tuple[Tiny, Model],
) -> None:
    tiny, model = pair
    clips = [noise(3 * RATE), noise(20 * RATE + 77, 1), noise(9000, 2)]
    answers = model.generate(clips, " What is\nsaid? ", **GREEDY)
    wanted = [tiny.answer((" What is\nsaid? ", [clip], [])) for clip in clips]
    assert [answer.token_ids for answer in answers] == wanted
    for clip, want in zip(clips, wanted, strict=True):
        assert model.generate(clip, " What is\nsaid? ", **GREEDY).token_ids == want


def test_speech_and_silence_are_answered_as_transformers_does(pair: tuple[Tiny, Model]) -> None:
    tiny, model = pair
    speech = soundfile.read(LIBRISPEECH[0], dtype="float32")[0]
    for clip in (speech, np.zeros(RATE, np.float32)):
        answer = model.generate(clip, "transcribe", **GREEDY)
        assert answer.token_ids == tiny.answer((ASK, [clip], []))


def test_two_clips_and_later_turns_are_answered_as_transformers_does(
    pair: tuple[Tiny, Model],
) -> None:
    tiny, model = pair
    first = soundfile.read(DIGITS[0], dtype="float32")[0]
    first = np.resize(first, 3 * RATE)
    chat = model.chat(**GREEDY)
    turns: list[Said] = []
    for words, clips in (
        ("Which is louder?", [first, noise(5 * RATE + 1)]),
        (" And now? ", []),
        ("And this?", [noise(2 * RATE, 3)]),
    ):
        turns.append((words, clips, []))
        answer = chat.ask(words, *clips)
        assert answer.token_ids == tiny.answer(*turns)
        turns[-1] = (words, clips, answer.token_ids)


def test_a_clip_that_is_no_embedding_is_padded_until_it_is_one(pair: tuple[Tiny, Model]) -> None:
    """transformers gives none of 320 samples and less."""
    tiny, model = pair
    clip = np.full(1, 0.3, np.float32)
    assert len(tiny.heard(noise(320))) == 0 and len(tiny.heard(noise(321))) == 1
    answer = model.generate(clip, "transcribe", **GREEDY)
    assert answer.token_ids == tiny.answer((ASK, [np.pad(clip, (0, 399))], []))


def test_graphs_are_fit_for_their_target(pair: tuple[Tiny, Model]) -> None:
    check_fit(pair[1].folder)


def test_a_longer_clip_is_cut_where_the_extractor_cuts_it(tmp_path: Path) -> None:
    tiny = tiny_qwen2_5_omni.make(tmp_path / "model", seconds=4)
    run_export("--model", tmp_path / "model", "--no-simplify", "--out", tmp_path / "out")
    model, clip = alm.load(tmp_path / "out", "cpu"), noise(5 * RATE)
    cut = model.generate(clip, "transcribe", truncate=True, **GREEDY)
    assert cut.token_ids == tiny.answer((ASK, [clip], [])) and cut.audio_tokens == 100
    assert model.generate(clip, "transcribe", **GREEDY).windows == 2
    whole = noise(4 * RATE)  # its last frame sees the window's mirrored end
    answer = model.generate(whole, "transcribe", **GREEDY)
    assert answer.token_ids == tiny.answer((ASK, [whole], []))
