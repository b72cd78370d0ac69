"""GLM-ASR: windows of a clip that are heard apart and stand as one, as transformers hears them."""

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

import alm
from alm.errors import BadCheckpoint, BadPrompt
from alm.facts import AudioFacts, TokenFacts
from alm.generation.model import Model
from tests.conftest import run_export
from tests.reference import DIGITS, LIBRISPEECH
from tests.whole.targets import check_fit, export_for, sized
from tests.wrappers.checkpoint.checkpoints import Copy, refused, without
from tests.wrappers.families import tiny_windowed
from tests.wrappers.families.tiny_hf import batch, noise
from tests.wrappers.families.tiny_qwen3_asr import alike
from tests.wrappers.families.tiny_windowed import GREEDY, RATE, Tiny, changed, processed
from wrappers import open_checkpoint
from wrappers.checkpoint.weights.hollow import filled

ASK = "Please transcribe this audio into text"
SIZES: dict[str, dict[str, Any]] = {
    "tied, half of a head turned": {},
    "own head, grouped heads everywhere": dict(
        tied=False, num_key_value_heads=1, intermediate_size=52,
        tower=dict(num_mel_bins=17, hidden_size=36, intermediate_size=144, hidden_act="relu",
                   num_attention_heads=6, num_key_value_heads=2),
    ),
    "windows of 4 s, whole heads turned": dict(
        seconds=4, num_attention_heads=2, head_dim=18,
        tower=dict(num_hidden_layers=1, num_attention_heads=4, head_dim=10,
                   rope_parameters=dict(rope_type="default", rope_theta=500.0,
                                        partial_rotary_factor=1.0)),
    ),
}  # fmt: skip
Hear = Callable[[list[np.ndarray]], list[Tensor]]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    return tiny_windowed.glmasr(tmp_path_factory.mktemp("glmasr"))


@pytest.fixture
def copy(tiny: Tiny, tmp_path: Path) -> Copy:
    return Copy(tiny.folder / "config.json", tmp_path)


# --- what is heard


@pytest.fixture(scope="module")
def hear(tiny: Tiny) -> Hear:
    """Our parts in torch: clips [samples] -> embeddings [n, hidden]."""
    loaded = open_checkpoint(tiny.folder)
    mel, tower, projector = (
        filled(loaded.part(name, "ort")) for name in ("mel", "glmasr", "projector")
    )

    def heard(clips: list[np.ndarray]) -> list[Tensor]:
        log_mel, counts = mel(*batch(clips))
        rows = torch.cat([projector(tower(each)) for each in log_mel.split(3000, 2)], 1)
        return [row[:n] for row, n in zip(rows, counts.tolist(), strict=True)]

    return heard


@pytest.mark.parametrize(
    "samples", [961, 1440, 1441, 2240, 2241, 100_003, 480_000, 480_001, 481_121, 990_000]
)
def test_a_clip_is_heard_as_transformers_hears_it(tiny: Tiny, hear: Hear, samples: int) -> None:
    clip = noise(samples)
    got = hear([clip])[0]
    assert len(got) == (-(-samples // 160) + 1) // 2 // 4
    alike(got, tiny.heard(clip))


def test_clips_of_different_windows_are_heard_together_as_each_alone(
    tiny: Tiny, hear: Hear
) -> None:
    clips = [noise(70 * RATE), 10 * noise(961, 1), noise(30 * RATE + 7, 2)]
    for got, clip in zip(hear(clips), clips, strict=True):
        alike(got, tiny.heard(clip))


def test_speech_and_silence_are_heard_as_transformers_hears_them(tiny: Tiny, hear: Hear) -> None:
    speech = [soundfile.read(path, dtype="float32")[0] for path in LIBRISPEECH]
    for clip in (*speech, np.zeros(20_000, np.float32)):
        alike(hear([clip])[0], tiny.heard(clip))


def test_a_window_is_as_loud_as_itself(tiny: Tiny, hear: Hear) -> None:
    quiet = 1e-4 * noise(5 * RATE, 1)
    clip = np.concatenate((10 * noise(30 * RATE), quiet))
    alike(hear([clip])[0][375:], hear([quiet])[0])
    alike(hear([clip])[0], tiny.heard(clip))


# --- whole runs


@pytest.fixture(scope="module", params=sized(SIZES, 1))
def pair(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Tiny, Model]:
    """A checkpoint of each kind, each for another target and so in another dialect."""
    sizes, target = request.param
    folder = tmp_path_factory.mktemp(target)
    made = tiny_windowed.glmasr(folder / "model", **SIZES[sizes])
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
    assert answer.audio_tokens == (-(-len(clip) // 160) + 1) // 2 // 4


def test_clips_of_different_lengths_are_answered_together_as_alone(
    pair: tuple[Tiny, Model],
) -> None:
    tiny, model = pair
    clips = [noise(3 * RATE), noise(40 * RATE + 77, 1), noise(9000, 2)]
    answers = model.generate(clips, " What is\nsaid? ", **GREEDY)
    wanted = [tiny.answer((" What is\nsaid? ", [clip], [])) for clip in clips]
    assert [answer.token_ids for answer in answers] == wanted


def test_a_later_turn_is_answered_as_transformers_does(pair: tuple[Tiny, Model]) -> None:
    tiny, model = pair
    clip = np.resize(soundfile.read(DIGITS[0], dtype="float32")[0], 33 * RATE)
    chat = model.chat(**GREEDY)
    turns: list[tuple[str, list[np.ndarray], list[int]]] = []
    for words, clips in (("Transcribe.", [clip]), (" And now? ", []), ("Sure?", [])):
        turns.append((words, clips, []))
        answer = chat.ask(words, *clips)
        assert answer.token_ids == tiny.answer(*turns)
        turns[-1] = (words, clips, answer.token_ids)


def test_more_clips_than_the_processor_takes_are_refused(pair: tuple[Tiny, Model]) -> None:
    tiny, model = pair
    with pytest.raises(ValueError, match="1:1"):
        tiny.answer(("Both.", [noise(RATE), noise(RATE)], []))
    with pytest.raises(BadPrompt, match="hears one clip at a time, and 2 are given"):
        model.generate([[noise(RATE), noise(RATE)]], "Both.")
    chat = model.chat(**GREEDY)
    chat.ask("transcribe", noise(RATE))
    with pytest.raises(BadPrompt, match="hears one clip in a conversation"):
        chat.ask("And now?", noise(RATE))
    with pytest.raises(BadPrompt, match="leave out the <audio>"):
        model.generate(noise(RATE), "Say <audio> again")


def test_graphs_are_fit_for_their_target(pair: tuple[Tiny, Model]) -> None:
    check_fit(pair[1].folder)


def test_a_clip_of_more_windows_is_cut_where_the_processor_cuts_it(tmp_path: Path) -> None:
    tiny = tiny_windowed.glmasr(tmp_path / "model", seconds=4, longest=11)
    run_export("--model", tmp_path / "model", "--no-simplify", "--out", tmp_path / "out")
    model, clip = alm.load(tmp_path / "out", "cpu"), noise(13 * RATE)
    cut = model.generate(clip, "transcribe", truncate=True, **GREEDY)
    assert cut.token_ids == tiny.answer((ASK, [clip], [])) and cut.audio_tokens == 100
    assert model.generate(clip, "transcribe", **GREEDY).windows == 2


# --- folders


def test_the_manifest_states_what_is_heard(tiny: Tiny) -> None:
    made = open_checkpoint(tiny.folder)
    assert made.roles == {
        **{"mel": "frontend", "glmasr": "encoder"},
        **{"projector": "bridge", "decoder": "decoder"},
    }
    assert made.facts.audio == AudioFacts(RATE, "mean", 961, 21 * 30 * RATE, "each")
    assert made.facts.dimensions.audio_tokens == 21 * 375
    assert made.facts.tokens == TokenFacts(eos=(0, 2), penalize_prompt=True)
    assert made.facts.prompt.tasks == {"transcribe": ASK}


def test_prompts_are_those_of_the_processor(tiny: Tiny) -> None:
    made = open_checkpoint(tiny.folder)
    tokenizer, prompt = Tokenizer.from_str(made.tokenizer_json), made.facts.prompt
    clip = noise(RATE)
    text = prompt.turn.replace("{clips}", prompt.clip).replace("{}", ASK)
    text = text.replace(prompt.placeholder, prompt.placeholder * 12)
    made_of_request = tiny.processor.apply_transcription_request(clip)["input_ids"][0].tolist()
    assert tokenizer.encode(text, add_special_tokens=False).ids == made_of_request
    assert tiny.asked([(ASK, [clip], [])])["input_ids"][0].tolist() == made_of_request


def other_template(copy: Copy) -> None:
    file = copy.folder / "chat_template.jinja"
    file.write_text(file.read_text().replace("<|assistant|>\n", "<|assistant|>\nWell: "))


CASES: dict[str, tuple[tuple[str, ...], Callable[[Copy], Any]]] = {
    "rows of other frames": (
        ("audio_config.intermediate_size: 56, and a row is 4 frames of 28",),
        lambda c: changed(c, "audio_config", intermediate_size=56),
    ),
    "heads that do not share the keys": (
        ("num_attention_heads 2 and num_key_value_heads 3, which do not go into each other",),
        lambda c: changed(c, "audio_config", num_key_value_heads=3),
    ),
    "another rope": (
        ("a rope 'yarn'; known is `default`",),
        lambda c: changed(
            c, "audio_config", rope_parameters=dict(rope_type="yarn", rope_theta=1e4, factor=2.0)
        ),
    ),
    "another tower": (
        ("audio_config.model_type: 'whisper'",),
        lambda c: changed(c, "", audio_config={"model_type": "whisper"}),
    ),
    "unknown activations": (
        ("activation_function 'mish' is unknown", "activation 'selu' is unknown"),
        lambda c: (
            changed(c, "audio_config", hidden_act="mish"),
            changed(c, "", projector_hidden_act="selu"),
        ),
    ),
    "an extractor of another spectrogram": (
        ("dither 0.1 and not 0", "feature_size 80 and not 20", "hop_length 200 and not 160"),
        lambda c: processed(c, "feature_extractor", dither=0.1, feature_size=80, hop_length=200),
    ),
    "an extractor that pads in front": (
        ("padding_side 'left'",),
        lambda c: processed(c, "feature_extractor", padding_side="left"),
    ),
    "windows that are no rows": (
        ("windows of 50 frames, which are no rows of 4",),
        lambda c: processed(c, "feature_extractor", chunk_length=1),
    ),
    "a processor that hears less than a window": (
        ("max_audio_len 20; it must be seconds from 30 to 4194",),
        lambda c: processed(c, "", max_audio_len=20),
    ),
    "another token for audio in the processor": (
        ("has '<|pad|>' for audio in its config and '<|user|>' in its processor",),
        lambda c: processed(c, "", audio_token="<|user|>"),
    ),
    "a token for audio that no tokenizer has": (
        ("says that token 5000 stands for audio",),
        lambda c: changed(c, "", audio_token_id=5000),
    ),
    "another chat template": (
        ("its chat template is not the one that is known", "Well: "),
        other_template,
    ),
    "weights missing from every piece": (
        (
            "audio_tower.layers.1.mlp.fc2.bias",
            "multi_modal_projector.linear_2.weight",
            "language_model.model.norm.weight",
        ),
        lambda c: c.weights("", without("layers.1.mlp.fc2.bias", "linear_2", "model.norm.weight")),
    ),
    "a weight that no part takes": (
        ("audio_tower.embed_positions.weight",),
        lambda c: c.weights(
            "", lambda s: s.update({"audio_tower.embed_positions.weight": torch.ones(3)})
        ),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_folder_that_cannot_be_followed_is_one_sentence(copy: Copy, case: str) -> None:
    names, change = CASES[case]
    change(copy)
    sentence = refused(copy, BadCheckpoint)
    assert all(name in sentence for name in names), sentence
