"""Qwen3-ASR: clips of their own length in windows of 8 s, as transformers hears them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from tokenizers import Tokenizer
from torch import Tensor

from alm.errors import BadCheckpoint, BadPrompt, UnknownName
from alm.facts import AudioFacts, TokenFacts
from alm.generation.model import Model
from tests.reference import DIGITS, LIBRISPEECH
from tests.whole.targets import check_fit, export_for, sized
from tests.wrappers.checkpoint.checkpoints import Copy, refused, without
from tests.wrappers.families import tiny_qwen3_asr
from tests.wrappers.families.tiny_hf import batch, noise
from tests.wrappers.families.tiny_qwen3_asr import RATE, Tiny, alike, authors
from wrappers import open_checkpoint
from wrappers.checkpoint.weights.hollow import filled
from wrappers.encoders.qwen3_asr import rows_of

GREEDY: dict[str, Any] = dict(max_new_tokens=32, do_sample=False, num_beams=1)
SIZES: dict[str, dict[str, Any]] = {
    "grouped heads, tied": {},
    "own head, odd sizes": dict(
        tied=False, tower=dict(num_mel_bins=17, d_model=28, encoder_attention_heads=2),
        head_dim=10, num_key_value_heads=1, intermediate_size=52,
    ),
    "windows of 4 s": dict(
        tower=dict(n_window_infer=400, encoder_layers=1, downsample_hidden_size=5),
        num_attention_heads=2, head_dim=24,
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    return tiny_qwen3_asr.make(tmp_path_factory.mktemp("qwen3_asr"))


@pytest.fixture
def copy(tiny: Tiny, tmp_path: Path) -> Copy:
    return Copy(tiny.folder / "config.json", tmp_path)


# --- what is heard


@pytest.fixture(scope="module")
def hear(tiny: Tiny) -> Callable[[list[np.ndarray]], list[Tensor]]:
    """Our parts in torch: clips [samples] of at most 8 s -> embeddings [n, hidden]."""
    loaded = open_checkpoint(tiny.folder)
    mel, tower, projector = (
        filled(loaded.part(name, "ort")) for name in ("mel", "qwen3_asr", "projector")
    )

    def heard(clips: list[np.ndarray]) -> list[Tensor]:
        speech, counts = tower(*mel(*batch(clips)))
        rows = projector(speech)
        return [row[:n] for row, n in zip(rows, counts.tolist(), strict=True)]

    return heard


@pytest.mark.parametrize(
    "samples", [8000, 8001, 8039, 8040, 15_999, 16_000, 16_160, 100_039, 128_000]
)
def test_a_clip_is_heard_as_transformers_hears_it(
    tiny: Tiny, hear: Callable[[list[np.ndarray]], list[Tensor]], samples: int
) -> None:
    clip = noise(samples)
    got = hear([clip])[0]
    assert len(got) == rows_of(samples // 160, 100)
    alike(got, tiny.heard(clip))


def test_clips_are_heard_together_as_each_alone(
    tiny: Tiny, hear: Callable[[list[np.ndarray]], list[Tensor]]
) -> None:
    """transformers' own batch differs: it looks for a clip's end in the padding behind it."""
    clips = [noise(16_000 * 7 + 3), noise(8000, 1) * 20, noise(16_000 * 3 + 170, 2)]
    for got, clip in zip(hear(clips), clips, strict=True):
        alike(got, tiny.heard(clip))


def test_speech_and_silence_are_heard_as_transformers_hears_them(
    tiny: Tiny, hear: Callable[[list[np.ndarray]], list[Tensor]]
) -> None:
    speech = [soundfile.read(path, dtype="float32")[0][:128_000] for path in LIBRISPEECH]
    for clip in (*speech, np.zeros(20_000, np.float32)):
        alike(hear([clip])[0], tiny.heard(clip))


# --- whole runs


def wanted(tiny: Tiny, clip: np.ndarray, context: str | None = None, language: str = "") -> Any:
    """Greedy tokens of transformers' processor and `generate`."""
    asked = tiny.asked([clip], context, language)
    made = tiny.truth.generate(**asked, **GREEDY, eos_token_id=[0, 2], pad_token_id=0)
    return made[0, asked["input_ids"].shape[1] :].tolist()


@pytest.fixture(scope="module", params=sized(SIZES, 6))
def pair(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Tiny, Model]:
    """A checkpoint of each kind, each for another target and so in another dialect."""
    sizes, target = request.param
    folder = tmp_path_factory.mktemp(target)
    made = tiny_qwen3_asr.make(folder / "model", **SIZES[sizes])
    return made, export_for(target, folder / "model", folder)


@pytest.mark.parametrize("seconds", [1, 5, 29.99, 31, 75])
def test_a_clip_of_any_length_is_answered_as_transformers_does(
    pair: tuple[Tiny, Model], seconds: float
) -> None:
    tiny, model = pair
    clip = noise(int(seconds * RATE))
    answer = model.generate(clip, "transcribe", **GREEDY)
    assert answer.token_ids == wanted(tiny, clip)
    assert answer.windows == 1
    assert answer.audio_tokens == rows_of(len(clip) // 160, 100)


def test_clips_of_different_lengths_are_answered_together_as_alone(
    pair: tuple[Tiny, Model],
) -> None:
    tiny, model = pair
    clips = [noise(3 * RATE), noise(20 * RATE + 77, 1), noise(9000, 2)]
    answers = model.generate(clips, "transcribe", **GREEDY)
    assert [answer.token_ids for answer in answers] == [wanted(tiny, clip) for clip in clips]


def test_context_and_language_stand_where_transformers_has_them(
    pair: tuple[Tiny, Model],
) -> None:
    tiny, model = pair
    clip = soundfile.read(DIGITS[0], dtype="float32")[0]
    clip = np.resize(clip, 2 * RATE)
    for context in ("Names: Anna, Łukasz.", " two\nlines "):
        answer = model.generate(clip, context, language="de", **GREEDY)
        assert answer.token_ids == wanted(tiny, clip, context, "German")
        assert answer.language == "German"


def test_a_clip_below_half_a_second_is_padded_as_transformers_pads_it(
    pair: tuple[Tiny, Model],
) -> None:
    tiny, model = pair
    for samples in (1, 7999):
        answer = model.generate(noise(samples) + 0.1, "transcribe", **GREEDY)
        assert answer.token_ids == wanted(tiny, noise(samples) + 0.1)


def test_what_the_original_does_not_take_is_refused(pair: tuple[Tiny, Model]) -> None:
    model = pair[1]
    chat = model.chat(**GREEDY)
    chat.ask("transcribe", noise(RATE))
    with pytest.raises(BadPrompt, match="answers one turn"):
        chat.ask("And now?", noise(RATE))
    with pytest.raises(UnknownName, match="no language 'xx'; there is: ar, cs"):
        model.generate(noise(RATE), "transcribe", language="xx")
    with pytest.raises(BadPrompt, match="hears one clip at a time, and 2 are given"):
        model.generate([[noise(RATE), noise(RATE)]], "Both.")
    with pytest.raises(BadPrompt, match="leave out the <audio>"):
        model.generate(noise(RATE), "Names in <audio>")


def test_graphs_are_fit_for_their_target(pair: tuple[Tiny, Model]) -> None:
    check_fit(pair[1].folder)


# --- folders


def test_the_manifest_states_what_is_heard(tiny: Tiny) -> None:
    made = open_checkpoint(tiny.folder)
    assert made.roles == {
        **{"mel": "frontend", "qwen3_asr": "encoder"},
        **{"projector": "bridge", "decoder": "decoder"},
    }
    assert made.facts.audio == AudioFacts(RATE, "mean", 8000, 1200 * RATE, "each")
    assert made.facts.dimensions.audio_tokens == 13 * 1200
    assert made.facts.tokens == TokenFacts(eos=(0, 2), penalize_prompt=True)


def test_prompts_are_those_of_the_processor(tiny: Tiny) -> None:
    made = open_checkpoint(tiny.folder)
    tokenizer, prompt = Tokenizer.from_str(made.tokenizer_json), made.facts.prompt
    clip = noise(RATE)
    for context, code in ((None, ""), ("A.", ""), ("A. ", "pl")):
        language = prompt.languages.get(code, "")
        text = prompt.turn.replace("{clips}", prompt.clip).replace("{}", context or "")
        text += prompt.heading.replace("{}", language) if language else ""
        text = text.replace(prompt.placeholder, prompt.placeholder * 13)
        asked = tiny.asked([clip], context, language)["input_ids"][0].tolist()
        assert tokenizer.encode(text, add_special_tokens=False).ids == asked


def test_languages_are_those_of_the_processor() -> None:
    from transformers.models.qwen3_asr import processing_qwen3_asr

    from wrappers.families.qwen3_asr import LANGUAGES

    assert LANGUAGES == processing_qwen3_asr.LANGUAGE_CODE_TO_NAME


def test_a_folder_in_the_authors_layout_is_the_same_model(tiny: Tiny, copy: Copy) -> None:
    authors(copy)
    theirs, ours = open_checkpoint(copy.config), open_checkpoint(tiny.folder)
    assert theirs.facts.prompt == ours.facts.prompt
    assert theirs.facts.dimensions == ours.facts.dimensions
    for name in ours.parts:
        got, want = (filled(made.part(name, "ort")).state_dict() for made in (theirs, ours))
        assert got.keys() == want.keys()
        assert all(torch.equal(got[key], want[key]) for key in want)
    clip = batch([noise(9000)])
    mel, tower = (filled(theirs.part(name, "ort")) for name in ("mel", "qwen3_asr"))
    want = tiny.truth.model.audio_tower(**tiny.features(noise(9000))).last_hidden_state
    alike(tower(*mel(*clip))[0][0][: len(want)], want)


def test_a_rotary_scaling_of_the_authors_layout_is_refused(copy: Copy) -> None:
    authors(copy)
    plain = json.loads(copy.config.read_text())
    plain["thinker_config"]["text_config"]["rope_scaling"]["type"] = "yarn"
    copy.config.write_text(json.dumps(plain))
    assert "rope_scaling says 'yarn'" in refused(copy, BadCheckpoint)


def changed(copy: Copy, section: str, **values: Any) -> None:
    plain = json.loads(copy.config.read_text())
    (plain[section] if section else plain).update(values)
    copy.config.write_text(json.dumps(plain))


def other_extractor(copy: Copy, **values: Any) -> None:
    file = copy.folder / "processor_config.json"
    plain = json.loads(file.read_text())
    plain["feature_extractor"].update(values)
    file.write_text(json.dumps(plain))


def other_template(copy: Copy) -> None:
    file = copy.folder / "chat_template.jinja"
    file.write_text(file.read_text().replace("system\n", "system\nTranscribe. "))


CASES: dict[str, tuple[tuple[str, ...], Callable[[Copy], Any]]] = {
    "chunks of another length": (
        ("n_window 60", "transformers counts 13 rows"),
        lambda c: (changed(c, "audio_config", n_window=60), other_extractor(c, n_window=60)),
    ),
    "windows that are no chunks": (
        ("n_window_infer 850, which is no multiple of 100",),
        lambda c: changed(c, "audio_config", n_window_infer=850),
    ),
    "rows of another width than the LLM's": (
        ("audio_config.output_dim: 64, and the LLM's rows are 48 wide",),
        lambda c: changed(c, "audio_config", output_dim=64),
    ),
    "an extractor of another spectrogram": (
        ("dither 0.1 and not 0", "min_length 400 and not 8000"),
        lambda c: other_extractor(c, dither=0.1, min_length=400),
    ),
    "weights missing from every piece": (
        (
            "audio_tower.layers.1.fc2.bias",
            "multi_modal_projector.linear_2.weight",
            "language_model.model.norm.weight",
        ),
        lambda c: c.weights("", without("layers.1.fc2.bias", "linear_2", "model.norm.weight")),
    ),
    "another chat template": (
        ("its chat template is not the one that is known", "Transcribe. "),
        other_template,
    ),
    "a token for audio that no tokenizer has": (
        ("says that token 5000 stands for audio",),
        lambda c: changed(c, "", audio_token_id=5000),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_folder_that_cannot_be_followed_is_one_sentence(copy: Copy, case: str) -> None:
    names, change = CASES[case]
    change(copy)
    sentence = refused(copy, BadCheckpoint)
    assert all(name in sentence for name in names), sentence
