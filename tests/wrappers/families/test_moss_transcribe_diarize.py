"""MOSS-Transcribe-Diarize: windows heard apart, times among their embeddings, as transformers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from torch import Tensor

from alm.errors import BadPrompt
from alm.facts import AudioFacts, TokenFacts
from alm.generation.model import Model
from tests.reference import DIGITS, LIBRISPEECH
from tests.whole.targets import check_fit, export_for, sized
from tests.wrappers.checkpoint.checkpoints import Copy
from tests.wrappers.families import tiny_moss
from tests.wrappers.families.tiny_hf import batch, noise
from tests.wrappers.families.tiny_moss import ASKING, OWN, TEMPLATE, authors
from tests.wrappers.families.tiny_qwen3_asr import alike
from tests.wrappers.families.tiny_windowed import GREEDY, RATE, Tiny
from wrappers import open_checkpoint
from wrappers.checkpoint.weights.hollow import filled
from wrappers.families.moss_transcribe_diarize import ASKED

SIZES: dict[str, dict[str, Any]] = {
    "tied, a time every 2 s": {},
    "own head, no bias, a time every 5 s that lags, a template that asks": dict(
        tower=dict(num_mel_bins=17, hidden_size=36, intermediate_size=52, num_attention_heads=6,
                   activation_function="relu"),
        whole=dict(tie_word_embeddings=False, projector_bias=False, projector_hidden_act="gelu"),
        told=dict(time_marker_every_seconds=5), template=ASKING,
        num_key_value_heads=1, intermediate_size=52, rms_norm_eps=1e-3,
    ),
    "windows of 4 s, 8 frames in a row": dict(
        seconds=4, tower=dict(num_hidden_layers=1), whole=dict(audio_merge_size=8),
        told=dict(audio_tokens_per_second=6.25, time_marker_every_seconds=3),
        num_attention_heads=2, head_dim=18, attention_bias=True,
    ),
}  # fmt: skip
Hear = Callable[[list[np.ndarray]], list[Tensor]]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    return tiny_moss.make(tmp_path_factory.mktemp("moss"))


@pytest.fixture
def copy(tiny: Tiny, tmp_path: Path) -> Copy:
    return Copy(tiny.folder / "config.json", tmp_path)


# --- what is heard


@pytest.fixture(scope="module")
def hear(tiny: Tiny) -> Hear:
    """Our parts in torch: clips [samples] -> embeddings [n, hidden]."""
    loaded = open_checkpoint(tiny.folder)
    mel, tower, projector = (
        filled(loaded.part(name, "ort")) for name in ("mel", "whisper", "projector")
    )

    def heard(clips: list[np.ndarray]) -> list[Tensor]:
        log_mel, counts = mel(*batch(clips))
        rows = torch.cat([projector(tower(each)) for each in log_mel.split(3000, 2)], 1)
        return [row[:n] for row, n in zip(rows, counts.tolist(), strict=True)]

    return heard


@pytest.mark.parametrize(
    "samples", [2, 1280, 1281, 2561, 100_003, 479_000, 480_000, 480_001, 481_281, 990_000]
)
def test_a_clip_is_heard_as_transformers_hears_it(tiny: Tiny, hear: Hear, samples: int) -> None:
    clip = noise(samples)
    got = hear([clip])[0]
    assert len(got) == -(-samples // 1280)
    alike(got, tiny.heard(clip))


def test_one_sample_is_heard_as_with_silence_behind_it(tiny: Tiny, hear: Hear) -> None:
    """transformers' own extractor takes no single sample for a clip."""
    clip = np.array([0.3], np.float32)
    with pytest.raises(IndexError):
        tiny.heard(clip)
    alike(hear([clip])[0], tiny.heard(np.append(clip, np.float32(0))))


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


# --- whole runs


@pytest.fixture(scope="module", params=sized(SIZES, 3))
def pair(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Tiny, Model]:
    """A checkpoint of each kind, each for another target and so in another dialect."""
    sizes, target = request.param
    folder = tmp_path_factory.mktemp(target)
    made = tiny_moss.make(folder / "model", **SIZES[sizes])
    return made, export_for(target, folder / "model", folder)


def ids_of(model: Model, words: str, rows: list[int]) -> list[int]:
    """The ids of a prompt about clips of so many embeddings."""
    prompter, hidden = model.parts.prompter, model.manifest.facts.dimensions.hidden
    prompt = prompter.build(words, len(rows))
    return prompter.ids(prompt, [np.zeros((n, hidden), np.float32) for n in rows])


@pytest.mark.parametrize("seconds", [1, 5, 29.99, 31, 75])
def test_a_clip_of_any_length_is_answered_as_transformers_does(
    pair: tuple[Tiny, Model], seconds: float
) -> None:
    tiny, model = pair
    clip = noise(int(seconds * RATE))
    words = model.tasks["transcribe"]
    asked = tiny.asked([(words, [clip], [])])["input_ids"][0].tolist()
    answer = model.generate(clip, "transcribe", **GREEDY)
    assert answer.token_ids == tiny.answer((words, [clip], []))
    assert answer.windows == 1
    assert answer.prompt_tokens == len(asked)
    assert ids_of(model, "transcribe", [answer.audio_tokens]) == asked


def test_a_request_without_words_is_the_transcript(pair: tuple[Tiny, Model]) -> None:
    tiny, model = pair
    made = tiny.processor.apply_transcription_request(noise(RATE), return_tensors="pt")
    asked = made["input_ids"][0].tolist()
    asks = tiny.processor.chat_template == ASKING
    assert model.tasks == {"transcribe": OWN if asks else ASKED}
    words = OWN if asks else ""
    sound = tiny.truth.config.audio_token_id
    assert asked == tiny.asked([(words, [noise(RATE)], [])])["input_ids"][0].tolist()
    if asks:
        assert asked == ids_of(model, "transcribe", [asked.count(sound)])


def test_clips_of_different_lengths_are_answered_together_as_alone(
    pair: tuple[Tiny, Model],
) -> None:
    tiny, model = pair
    clips = [noise(3 * RATE), noise(40 * RATE + 77, 1), noise(9000, 2)]
    answers = model.generate(clips, " What is\nsaid? ", **GREEDY)
    wanted = [tiny.answer((" What is\nsaid? ", [clip], [])) for clip in clips]
    assert [answer.token_ids for answer in answers] == wanted


def test_two_clips_and_later_turns_are_answered_as_transformers_does(
    pair: tuple[Tiny, Model],
) -> None:
    tiny, model = pair
    speech = soundfile.read(DIGITS[0], dtype="float32")[0]
    clips = [np.resize(speech, 33 * RATE), noise(7 * RATE, 3), noise(2 * RATE, 4)]
    turns = [("Which is longer?", clips[:2]), (" And now? ", [clips[2]]), ("Sure?", [])]
    if model.manifest.facts.prompt.one_clip:
        with pytest.raises(BadPrompt, match="hears one clip at a time, and 2 are given"):
            model.generate([clips[:2]], "Both.")
        turns = [("What is said?", clips[:1]), (" And now? ", []), ("Sure?", [])]
    chat = model.chat(**GREEDY)
    said: list[tuple[str, list[np.ndarray], list[int]]] = []
    for words, heard in turns:
        said.append((words, heard, []))
        answer = chat.ask(words, *heard)
        assert answer.token_ids == tiny.answer(*said)
        said[-1] = (words, heard, answer.token_ids)


def test_a_penalty_sees_the_times_in_the_prompt(pair: tuple[Tiny, Model]) -> None:
    tiny, model = pair
    clip = noise(11 * RATE, 5)
    asked = tiny.asked([("Digits?", [clip], [])])
    ids = asked["input_ids"]
    mask = torch.ones_like(ids)
    made = tiny.truth.generate(**asked, **GREEDY, repetition_penalty=1.4, attention_mask=mask)
    answer = model.generate(clip, "Digits?", repetition_penalty=1.4, **GREEDY)
    assert answer.token_ids == made[0, ids.shape[1] :].tolist()


def test_graphs_are_fit_for_their_target(pair: tuple[Tiny, Model]) -> None:
    check_fit(pair[1].folder)


# --- folders


def test_the_manifest_states_what_is_heard(tiny: Tiny) -> None:
    made = open_checkpoint(tiny.folder)
    assert made.roles == {
        **{"mel": "frontend", "whisper": "encoder"},
        **{"projector": "bridge", "decoder": "decoder"},
    }
    windows = 4096 // 750  # half of the context
    assert made.facts.audio == AudioFacts(RATE, "mean", 1, windows * 30 * RATE, "each")
    assert made.facts.dimensions.audio_tokens == windows * 375
    assert made.facts.tokens == TokenFacts(eos=(0, 2), penalize_prompt=True)
    prompt = made.facts.prompt
    assert (prompt.time_mark, prompt.speaker_mark) == ("[{}]", "[S{}]")
    assert (prompt.marker_seconds, prompt.marker_rows, prompt.marker_rate) == (2, 25, 12_500)
    assert not prompt.one_clip and prompt.joined == (ASKED,)


@pytest.mark.parametrize("every", [0, 1, 7])
def test_times_stand_where_the_processor_writes_them(tmp_path: Path, every: int) -> None:
    from tokenizers import Tokenizer

    from alm.text.prompt import Prompter

    made = tiny_moss.make(tmp_path, told=dict(time_marker_every_seconds=every))
    checkpoint = open_checkpoint(tmp_path)
    facts = checkpoint.facts
    prompter = Prompter(Tokenizer.from_str(checkpoint.tokenizer_json), facts.prompt, facts.tokens)
    processor, sound = made.processor, made.truth.config.audio_token_id
    for rows in (*range(1, 60), 187, 188, 375, 12_500):
        text = processor.replace_audio_token({"num_audio_tokens": [rows]}, 0)
        want = processor.tokenizer.encode(text, add_special_tokens=False)
        assert prompter.markers.ids(rows, [sound]) == want
        woven = prompter.markers.woven(np.zeros((rows, 2), np.float32))
        flat = [i for piece in woven for i in ([sound] * len(piece), piece)[piece.ndim == 1]]
        assert flat == want
    assert bool(facts.prompt.marker_seconds) == bool(every)


def test_without_a_template_the_published_prompt_is_written(copy: Copy) -> None:
    want = open_checkpoint(copy.folder).facts.prompt
    (copy.folder / "chat_template.jinja").unlink()
    assert open_checkpoint(copy.folder).facts.prompt == want


def test_an_answer_may_be_long_where_nothing_says_how_long(copy: Copy) -> None:
    copy.json("generation_config.json", max_new_tokens=None)
    assert open_checkpoint(copy.folder).facts.generation["max_new_tokens"] == 5120


def test_the_authors_own_layout_is_the_same_model(tiny: Tiny, copy: Copy) -> None:
    """As transformers' conversion of their upload has it: names of weights and of settings."""
    ours = open_checkpoint(tiny.folder)
    authors(copy)
    theirs = open_checkpoint(copy.folder)
    for name in ("audio", "dimensions", "prompt", "tokens", "generation"):
        assert getattr(theirs.facts, name) == getattr(ours.facts, name)
    for part in ("whisper", "projector", "decoder"):
        want = filled(ours.part(part, "ort")).state_dict()
        got = filled(theirs.part(part, "ort")).state_dict()
        assert got.keys() == want.keys() and all(torch.equal(got[k], want[k]) for k in want)


def test_the_templates_of_these_tests_are_of_both_kinds(tmp_path: Path) -> None:
    facts = [
        open_checkpoint(tiny_moss.make(tmp_path / name, template=template).folder).facts.prompt
        for name, template in (("in place", TEMPLATE), ("before", ASKING))
    ]
    assert [prompt.one_clip for prompt in facts] == [False, True]
