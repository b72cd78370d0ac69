"""Qwen3-Omni's thinker: clips in windows of 8 s that are heard as one, as transformers does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from torch import Tensor

import alm
from alm.generation.model import Model
from tests.conftest import run_export
from tests.reference import DIGITS, LIBRISPEECH
from tests.whole.targets import check_fit, export_for, sized
from tests.wrappers.families import tiny_qwen3_omni
from tests.wrappers.families.tiny_hf import batch, noise
from tests.wrappers.families.tiny_qwen3_asr import alike
from tests.wrappers.families.tiny_qwen3_omni import GREEDY, RATE, Said, Tiny
from wrappers import open_checkpoint
from wrappers.checkpoint.weights.hollow import filled
from wrappers.encoders.qwen3_asr import rows_of

ASK = "Transcribe the speech."
SIZES: dict[str, dict[str, Any]] = {
    "own head, grouped heads": {},
    "tied, odd sizes, experts in every other layer, biases": dict(
        tied=True, hidden_size=36, head_dim=20, num_attention_heads=3, num_key_value_heads=1,
        attention_bias=True, norm_topk_prob=False, num_hidden_layers=3, decoder_sparse_step=2,
        rope_parameters=dict(rope_type="default", rope_theta=5e5, mrope_section=[4, 2, 4],
                             mrope_interleaved=True),
        tower=dict(num_mel_bins=17, d_model=30, encoder_attention_heads=3, encoder_layers=3,
                   n_window=52, n_window_infer=208, max_source_positions=13,
                   activation_function="relu"),
    ),
    "yarn, a layer without experts, windows of a chunk": dict(
        num_hidden_layers=3, mlp_only_layers=[1], num_experts=6, num_experts_per_tok=3,
        rope_parameters=dict(rope_type="yarn", rope_theta=1e4, factor=4.0, mrope_section=[1, 3, 2],
                             original_max_position_embeddings=512),
        tower=dict(n_window=49, n_window_infer=98, encoder_layers=1),
    ),
}  # fmt: skip
Hear = Callable[[list[np.ndarray]], list[Tensor]]


@pytest.fixture(scope="module", params=SIZES)
def tiny(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    return tiny_qwen3_omni.make(tmp_path_factory.mktemp("omni"), **SIZES[request.param])


# --- what is heard


@pytest.fixture(scope="module")
def hear(tiny: Tiny) -> Hear:
    """Our parts in torch: clips [samples] -> embeddings [n, hidden], window by window."""
    loaded = open_checkpoint(tiny.folder)
    mel, tower, projector = (
        filled(loaded.part(name, "ort")) for name in ("mel", "qwen3_asr", "projector")
    )
    most = tower.spans["frames"].most

    def heard(clips: list[np.ndarray]) -> list[Tensor]:
        log_mel, lengths, short = mel(*batch(clips))
        rows: list[Tensor] = []
        for clip, n, brief in zip(log_mel, lengths, short, strict=True):
            pieces = [
                tower(clip[None, :, at : at + most], (n - at).clamp(max=most)[None], brief[None])
                for at in range(0, int(n), most)
            ]
            rows.append(torch.cat([projector(y)[0, : int(count)] for y, count in pieces]))
        return rows

    return heard


@pytest.mark.parametrize(
    "samples",
    [201, 319, 1000, 8000, 15_520, 15_999, 16_000, 16_160, 33_333, 128_000, 129_000, 496_001],
)
def test_a_clip_is_heard_as_transformers_hears_it(tiny: Tiny, hear: Hear, samples: int) -> None:
    clip = noise(samples)
    got = hear([clip])[0]
    assert len(got) == rows_of(samples // 160, 2 * tiny.truth.config.audio_config.n_window)
    alike(got, tiny.heard(clip))


def test_clips_are_heard_together_as_each_alone(tiny: Tiny) -> None:
    """In one batch: one clip of less than a second ends with itself, the others do not."""
    loaded = open_checkpoint(tiny.folder)
    mel, tower, projector = (
        filled(loaded.part(name, "ort")) for name in ("mel", "qwen3_asr", "projector")
    )
    most = 160 * tower.spans["frames"].most  # what the tower takes at a time
    clips = [noise(15_000 + 3), 20 * noise(8000, 1), noise(RATE + 170, 2)[:most]]
    speech, counts = tower(*mel(*batch(clips)))
    for got, n, clip in zip(projector(speech), counts.tolist(), clips, strict=True):
        alike(got[:n], tiny.heard(clip))


def test_the_end_of_a_short_clip_matters(tiny: Tiny) -> None:
    """As Qwen3-ASR's convolutions see it, it would be another."""
    loaded, clip = open_checkpoint(tiny.folder), noise(57 * 160)
    mel, tower, projector = (
        filled(loaded.part(name, "ort")) for name in ("mel", "qwen3_asr", "projector")
    )
    log_mel, lengths, short = mel(*batch([clip]))
    assert short.tolist() == [1]
    speech, counts = tower(log_mel, lengths, torch.zeros_like(short))
    difference = projector(speech)[0, : int(counts)] - tiny.heard(clip)
    assert difference.abs().amax(1)[-1] > 1e-2


def test_speech_and_silence_are_heard_as_transformers_hears_them(tiny: Tiny, hear: Hear) -> None:
    speech = [soundfile.read(path, dtype="float32")[0] for path in LIBRISPEECH]
    for clip in (*speech, np.zeros(20_000, np.float32)):
        alike(hear([clip])[0], tiny.heard(clip))


def test_positions_of_sound_and_text_are_one_stream(tiny: Tiny) -> None:
    """So the decoder's rotary embedding is a plain one: see `OmniFolder.text_config`."""
    asked = tiny.asked([("Both?", [noise(RATE), noise(9000)], [9, 17]), ("And?", [], [])])
    ids = asked["input_ids"]
    frames = asked["feature_attention_mask"].sum(-1)
    positions, deltas = tiny.truth.get_rope_index(
        ids, attention_mask=torch.ones_like(ids), audio_seqlens=frames
    )
    assert positions.long().tolist() == 3 * [[list(range(ids.shape[1]))]]
    assert deltas.tolist() == [[0]]


# --- whole runs


@pytest.fixture(scope="module", params=sized(SIZES, 7))
def pair(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Tiny, Model]:
    """A checkpoint of each kind, each for another target and so in another dialect."""
    sizes, target = request.param
    folder = tmp_path_factory.mktemp(target)
    made = tiny_qwen3_omni.make(folder / "model", **SIZES[sizes])
    return made, export_for(target, folder / "model", folder)


@pytest.mark.parametrize("seconds", [0.7, 1, 5, 29.99, 31, 75])
def test_a_clip_of_any_length_is_answered_as_transformers_does(
    pair: tuple[Tiny, Model], seconds: float
) -> None:
    tiny, model = pair
    clip = noise(int(seconds * RATE))
    answer = model.generate(clip, "transcribe", **GREEDY)
    assert answer.token_ids == tiny.answer((ASK, [clip], []))
    assert answer.windows == 1
    half = tiny.truth.config.audio_config.n_window
    assert answer.audio_tokens == rows_of(len(clip) // 160, 2 * half)


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


def test_clips_of_one_prompt_are_as_the_processor_makes_them_of_one_length(
    pair: tuple[Tiny, Model],
) -> None:
    """It pads them to the longest, and with equal lengths nothing is padded."""
    tiny, model = pair
    clips = [noise(2 * RATE + 77), noise(2 * RATE + 77, 1)]
    asked = tiny.asked([("Which?", clips, [])])
    asked |= tiny.features(clips)
    answer = model.generate([clips], "Which?", **GREEDY)[0]
    assert answer.token_ids == tiny.generated(asked)


def test_a_clip_that_is_no_spectrogram_is_padded_until_it_is_one(pair: tuple[Tiny, Model]) -> None:
    """transformers cannot mirror the end of 200 samples and less."""
    tiny, model = pair
    clip = np.full(1, 0.3, np.float32)
    with pytest.raises(RuntimeError, match="[Pp]adding size"):
        tiny.features([noise(200)])
    answer = model.generate(clip, "transcribe", **GREEDY)
    assert answer.token_ids == tiny.answer((ASK, [np.pad(clip, (0, 200))], []))


def test_graphs_are_fit_for_their_target(pair: tuple[Tiny, Model]) -> None:
    check_fit(pair[1].folder)


def test_the_whole_models_thinker_is_taken(tmp_path: Path) -> None:
    tiny = tiny_qwen3_omni.whole(tmp_path / "model")
    run_export("--model", tmp_path / "model", "--no-simplify", "--out", tmp_path / "out")
    clip = noise(3 * RATE)
    answer = alm.load(tmp_path / "out", "cpu").generate(clip, "transcribe", **GREEDY)
    assert answer.token_ids == tiny.answer((ASK, [clip], []))
