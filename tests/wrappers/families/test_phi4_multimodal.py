"""Phi-4-multimodal: a clip of any length heard as one, as transformers hears it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from tokenizers import Tokenizer
from torch import Tensor

from alm.facts import AudioFacts, TokenFacts
from alm.generation.model import Model
from tests.reference import DIGITS, LIBRISPEECH
from tests.whole.targets import check_fit, export_for, sized
from tests.wrappers.families import tiny_phi4_multimodal
from tests.wrappers.families.tiny_hf import batch, noise
from tests.wrappers.families.tiny_phi4_multimodal import GREEDY, RATE, ROPE, Tiny
from tests.wrappers.families.tiny_qwen3_asr import alike
from wrappers import open_checkpoint
from wrappers.checkpoint.weights.hollow import filled
from wrappers.encoders.phi4_conformer import ROWS

ASK = "Transcribe the audio clip into text."
SIZES: dict[str, dict[str, Any]] = {
    "tied, heads turned in part, a speech LoRA": {},
    "own head, a window, symmetric bias, rows of 40 ms, no LoRA": dict(
        lora=False, tie_word_embeddings=False, sliding_window=50, num_key_value_heads=1,
        rope=dict(rope_type="default", rope_theta=500.0),
        extractor=dict(preemphasis=0.9, mel_min_frequency=50, mel_max_frequency=7000),
        tower=dict(time_reduction=4, input_size=17, kernel_size=4, depthwise_multiplier=2,
                   bias_symmetric=True, bias_max_distance=ROWS, activation="gelu",
                   conv_activation="relu", conv_glu_type="gelu", nemo_activation="swish"),
    ),
    "past the trained length from the start": dict(
        num_key_value_heads=None, hidden_act="gelu", original_max_position_embeddings=8,
        rope=ROPE | dict(partial_rotary_factor=1.0, short_factor=[1.0] * 5,
                         long_factor=[1.0, 2.0, 3.0, 4.0, 5.0]),
        tower=dict(hidden_size=30, ext_pw_out_channel=30, depthwise_separable_out_channel=30,
                   num_attention_heads=2, num_blocks=1, kernel_size=1),
    ),
}  # fmt: skip
Hear = Callable[[list[np.ndarray]], list[Tensor]]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    return tiny_phi4_multimodal.make(tmp_path_factory.mktemp("phi4"))


# --- what is heard


@pytest.fixture(scope="module")
def hear(tiny: Tiny) -> Hear:
    """Our parts in torch: clips [samples] -> embeddings [n, hidden]."""
    loaded = open_checkpoint(tiny.folder)
    mel, tower, projector = (
        filled(loaded.part(name, "ort")) for name in ("mel", "phi4_conformer", "projector")
    )
    most = tower.spans["frames"].most

    def heard(clips: list[np.ndarray]) -> list[Tensor]:
        log_mel, real, lengths = mel(*batch(clips))
        rows, counts = [], torch.zeros(len(clips), dtype=torch.int64)
        for at in range(0, log_mel.shape[2], most):
            piece = (log_mel[:, :, at : at + most], real[:, at : at + most])
            speech, made = tower(*piece, (lengths - at).clip(0, most))
            rows.append(projector(speech))
            counts += made
        return [row[:n] for row, n in zip(torch.cat(rows, 1), counts.tolist(), strict=True)]

    return heard


@pytest.mark.parametrize(
    "samples",
    # one frame, two rows, 500 rows and all frames of them, one frame more, two pieces exactly
    [400, 559, 1679, 1680, 100_003, 640_240, 640_399, 640_400, 1_280_240, 1_300_001],
)
def test_a_clip_is_heard_as_transformers_hears_it(tiny: Tiny, hear: Hear, samples: int) -> None:
    clip = noise(samples)
    got = hear([clip])[0]
    assert len(got) == -(-((samples - 400) // 160 + 1) // 8)
    alike(got, tiny.heard(clip))


def test_clips_of_different_lengths_are_heard_together_as_each_alone(
    tiny: Tiny, hear: Hear
) -> None:
    clips = [noise(85 * RATE), 3 * noise(961, 1), noise(40 * RATE + 777, 2), noise(400, 3)]
    for got, clip in zip(hear(clips), clips, strict=True):
        alike(got, tiny.heard(clip))


def test_speech_tones_and_silence_are_heard_as_transformers_hears_them(
    tiny: Tiny, hear: Hear
) -> None:
    speech = [soundfile.read(path, dtype="float32")[0] for path in LIBRISPEECH]
    tone = np.sin(np.arange(20_000, dtype=np.float32) / 3)
    for clip in (*speech, tone, np.zeros(20_000, np.float32)):
        alike(hear([clip])[0], tiny.heard(clip))


# --- whole runs


@pytest.fixture(scope="module", params=sized(SIZES, 4))
def pair(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Tiny, Model]:
    """A checkpoint of each kind, each for another target and so in another dialect."""
    sizes, target = request.param
    folder = tmp_path_factory.mktemp(target)
    made = tiny_phi4_multimodal.make(folder / "model", **SIZES[sizes])
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
    reduction = tiny.truth.config.audio_config.time_reduction
    assert answer.audio_tokens == -(-((len(clip) - 400) // 160 + 1) // reduction)


def test_speech_silence_and_a_single_sample_are_answered_as_transformers_does(
    pair: tuple[Tiny, Model],
) -> None:
    tiny, model = pair
    speech = soundfile.read(LIBRISPEECH[0], dtype="float32")[0]
    for clip in (speech, np.zeros(RATE, np.float32), np.full(1, 0.5, np.float32)):
        answer = model.generate(clip, "What is said?", **GREEDY)
        padded = np.pad(clip, (0, max(0, 400 - len(clip))))  # the original takes none that short
        assert answer.token_ids == tiny.answer(("What is said?", [padded], []))


def test_clips_of_different_lengths_are_answered_together_as_alone(
    pair: tuple[Tiny, Model],
) -> None:
    tiny, model = pair
    clips = [noise(3 * RATE), noise(43 * RATE + 77, 1), noise(9000, 2)]
    answers = model.generate(clips, " What is\nsaid? ", **GREEDY)
    wanted = [tiny.answer((" What is\nsaid? ", [clip], [])) for clip in clips]
    assert [answer.token_ids for answer in answers] == wanted


def test_two_clips_are_answered_as_transformers_does(pair: tuple[Tiny, Model]) -> None:
    tiny, model = pair
    clips = [noise(2 * RATE), noise(2 * RATE, 1)]
    answer = model.generate([clips], "Which is louder?", **GREEDY)[0]
    assert answer.token_ids == tiny.answer_to_two("Which is louder?", clips)
    apart = [noise(RATE), noise(3 * RATE + 5, 1)]
    answer = model.generate([apart], "And now?", **GREEDY)[0]
    assert answer.token_ids == tiny.answer(("And now?", apart, []))


def test_a_later_turn_is_answered_as_transformers_does(pair: tuple[Tiny, Model]) -> None:
    tiny, model = pair
    first, second = soundfile.read(DIGITS[0], dtype="float32")[0], noise(RATE, 4)
    chat = model.chat(**GREEDY)
    turns: list[tuple[str, list[np.ndarray], list[int]]] = []
    for words, clips in (("Transcribe.", [first]), (" And now? ", []), ("This one?", [second])):
        turns.append((words, clips, []))
        answer = chat.ask(words, *clips)
        assert answer.token_ids == tiny.answer(*turns)
        turns[-1] = (words, clips, answer.token_ids)


def test_graphs_are_fit_for_their_target(pair: tuple[Tiny, Model]) -> None:
    check_fit(pair[1].folder)


# --- the folder


def test_the_manifest_states_what_is_heard(tiny: Tiny) -> None:
    made = open_checkpoint(tiny.folder)
    assert made.roles == {
        **{"mel": "frontend", "phi4_conformer": "encoder"},
        **{"projector": "bridge", "decoder": "decoder"},
    }
    assert made.facts.audio == AudioFacts(RATE, "mean", 400, 1800 * RATE, "each")
    assert made.facts.dimensions.audio_tokens == 22_500
    assert made.facts.dimensions.rope_switches_past == 4096
    assert made.facts.tokens == TokenFacts(eos=(1, 0), penalize_prompt=True)
    assert made.facts.prompt.tasks["translate_de"] == "Translate the audio to German."
    assert made.facts.source["llm"] == "phi3" and made.facts.source["adapter"] == "LoRA"


def test_what_is_merged_and_what_is_left_out_is_said(tiny: Tiny, tmp_path: Path) -> None:
    merged, images = open_checkpoint(tiny.folder).notes
    assert f"the LoRA in {tiny.folder / 'speech-lora'}" in merged
    assert images.startswith("54 weights of images are left out, and 4 of the projector")
    bare = tiny_phi4_multimodal.make(tmp_path, lora=False)
    assert f"there is no speech-lora in {bare.folder}" in open_checkpoint(bare.folder).notes[0]


def test_another_speech_lora_is_another_checkpoint(tiny: Tiny, tmp_path: Path) -> None:
    import shutil

    other = shutil.copytree(tiny.folder, tmp_path / "other")
    before = open_checkpoint(other).facts.source["fingerprint"]
    assert before == open_checkpoint(tiny.folder).facts.source["fingerprint"]
    file = other / "speech-lora" / "adapter_config.json"
    file.write_text(file.read_text().replace('"lora_alpha": 8', '"lora_alpha": 9'))
    assert open_checkpoint(other).facts.source["fingerprint"] != before


def test_prompts_are_those_of_the_processor(tiny: Tiny) -> None:
    made = open_checkpoint(tiny.folder)
    tokenizer, prompt = Tokenizer.from_str(made.tokenizer_json), made.facts.prompt
    clip = noise(RATE)
    text = prompt.turn.replace("{clips}", prompt.clip * 2).replace("{}", ASK)
    text = text.replace(prompt.placeholder, prompt.placeholder * 13)
    ids, _ = tiny.asked([(ASK, [clip, clip], [])])
    assert tokenizer.encode(text, add_special_tokens=False).ids == ids
