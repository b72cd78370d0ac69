"""Voxtral: clips of any length heard as one, as transformers hears them, and its own prompts."""

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

from alm.errors import BadCheckpoint
from alm.facts import AudioFacts, TokenFacts
from alm.session import Session
from tests.reference import DIGITS, LIBRISPEECH
from tests.wrappers.checkpoint.checkpoints import Copy, refused, renamed, without
from tests.wrappers.families import tiny_hf
from tests.wrappers.families.tiny_hf import RATE, Tiny, batch, noise
from tests.wrappers.families.traced_parts import answered, graphs
from wrappers import open_checkpoint
from wrappers.checkpoint.weights.hollow import filled
from wrappers.frontends.mel import Mel

Hear = Callable[[list[np.ndarray]], list[Tensor]]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    """A window of 30 s."""
    return tiny_hf.voxtral(tmp_path_factory.mktemp("voxtral"))


@pytest.fixture(scope="module")
def brief(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    """A window of 4 s."""
    return tiny_hf.voxtral(tmp_path_factory.mktemp("brief"), seconds=4)


@pytest.fixture(scope="module")
def hear(tiny: Tiny) -> Hear:
    """Our parts in torch: clips [samples] of as many windows each -> embeddings [n, hidden]."""
    loaded = open_checkpoint(tiny.folder)
    mel, whisper, projector = (
        filled(loaded.part(name, "ort")) for name in ("mel", "whisper", "projector")
    )

    def heard_by_ours(clips: list[np.ndarray]) -> list[Tensor]:
        log_mel, counts = mel(*batch(clips))
        speech = torch.cat([whisper(window) for window in log_mel.split(3000, 2)], 1)
        rows = torch.cat([projector(window) for window in speech.split(1500, 1)], 1)
        return [row[:n] for row, n in zip(rows, counts.tolist(), strict=True)]

    return heard_by_ours


@pytest.fixture
def copy(brief: Tiny, tmp_path: Path) -> Copy:
    return Copy(brief.folder / "config.json", tmp_path)


def features(tiny: Tiny, clip: np.ndarray) -> Tensor:
    """The windows of a clip [windows, mels, frames] as transformers' processor makes them."""
    extractor = tiny.extractor
    made = extractor(
        clip,
        sampling_rate=RATE,
        padding="longest",
        truncation=False,
        pad_to_multiple_of=extractor.n_samples,
        return_tensors="pt",
    )
    mel = torch.as_tensor(made.input_features)[0]
    return mel.reshape(len(mel), -1, extractor.nb_max_frames).transpose(0, 1)


def heard(tiny: Tiny, clips: list[np.ndarray]) -> list[Tensor]:
    """Embeddings [n, hidden] of each clip, as transformers has them."""
    with torch.no_grad():
        return [tiny.truth.get_audio_features(features(tiny, c)).pooler_output for c in clips]


def alike(got: list[Tensor], want: list[Tensor]) -> None:
    """As many rows of each clip, and no number further than 1e-4 of the largest."""
    assert [len(each) for each in got] == [len(each) for each in want]
    for one, other in zip(got, want, strict=True):
        worst = float((one - other).abs().max())
        assert worst < 1e-4 * max(1.0, float(other.abs().max()))


# --- what is heard


@pytest.mark.parametrize("seconds, rows", [(29, 375), (30, 375), (31, 750), (61.3, 1125)])
def test_a_clip_of_any_length_is_heard_as_transformers_hears_it(
    tiny: Tiny, hear: Hear, seconds: float, rows: int
) -> None:
    clip = noise(int(seconds * RATE))
    got = hear([clip])
    assert len(got[0]) == rows
    alike(got, heard(tiny, [clip]))


def test_clips_of_as_many_windows_are_heard_together_as_alone(tiny: Tiny, hear: Hear) -> None:
    clips = [noise(60 * RATE), noise(30 * RATE + 1, 1), noise(40 * RATE, 2)]
    alike(hear(clips), heard(tiny, clips))


def test_one_sample_and_silence_are_a_window(tiny: Tiny, hear: Hear) -> None:
    clips = [noise(1) + 0.5, np.zeros(1, np.float32), np.zeros(2 * RATE, np.float32)]
    got = hear(clips)
    assert [len(each) for each in got] == [375] * 3
    alike(got, heard(tiny, clips))


def test_speech_is_heard_as_transformers_hears_it(tiny: Tiny, hear: Hear) -> None:
    clips = [soundfile.read(path, dtype="float32")[0] for path in (*LIBRISPEECH, *DIGITS[:2])]
    clips.append(np.concatenate(clips * 2)[: 50 * RATE])
    alike(hear(clips[:-1]), heard(tiny, clips[:-1]))
    alike(hear(clips[-1:]), heard(tiny, clips[-1:]))


def test_a_quiet_window_is_scaled_by_the_loudest_of_its_clip() -> None:
    loud, quiet = 10 * noise(30 * RATE), 1e-4 * noise(30 * RATE, 1)
    clip = torch.from_numpy(np.concatenate((loud, quiet)))[None]
    log_mel, counts = Mel(80, rows=375)(clip, torch.tensor([clip.shape[1]]))
    alone = Mel(80)(torch.from_numpy(quiet)[None])
    assert counts.tolist() == [750] and log_mel.shape == (1, 80, 6000)
    assert (log_mel[:, :, 3010:] - alone[:, :, 10:]).abs().max() > 0.1


def test_a_whole_clip_has_the_spectrogram_of_the_extractor(tiny: Tiny) -> None:
    for samples in (1, 479_999, 480_000, 480_001, 700_000):
        clip = noise(samples)
        log_mel, _ = Mel(80, rows=375)(*batch([clip]))
        want = features(tiny, clip).transpose(0, 1).reshape(1, 80, -1)
        torch.testing.assert_close(log_mel, want, atol=1e-4, rtol=0)


def test_embeddings_are_counted_by_windows_and_are_never_none() -> None:
    mel = Mel(80, 32_000, rows=25)
    samples = torch.tensor([0, 1, 31_999, 32_000, 32_001, 64_000, 64_001])
    _, counts = mel(torch.zeros(7, 64_001), samples)
    assert counts.tolist() == [25, 25, 25, 25, 50, 50, 75]


@pytest.fixture(scope="module")
def alike_in_all(brief: Tiny, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Session]:
    """Graphs of the parts that no dialect changes."""
    loaded = open_checkpoint(brief.folder)
    made = {name: loaded.part(name, "standard") for name in ("mel", "projector")}
    return graphs(made, tmp_path_factory.mktemp("graphs"))


@pytest.mark.parametrize("dialect", ["decomposed", "standard", "ort"])
def test_the_graphs_hear_and_answer_as_transformers_does(
    brief: Tiny, alike_in_all: dict[str, Session], dialect: str, tmp_path: Path
) -> None:
    loaded = open_checkpoint(brief.folder)
    made = {name: loaded.part(name, dialect) for name in ("whisper", "decoder")}
    run = alike_in_all | graphs(made, tmp_path)
    for clips in ([noise(1)], [noise(9 * RATE), noise(12 * RATE, 1)]):
        pcm, lengths = batch(clips)
        front = run["mel"].run({"pcm": pcm.numpy(), "pcm_lengths": lengths.numpy()})
        windows = np.split(front["log_mel"], front["log_mel"].shape[2] // 400, 2)
        speech = [run["whisper"].run({"log_mel": each})["speech"] for each in windows]
        rows = [run["projector"].run({"speech": each})["audio_embeds"] for each in speech]
        got = [torch.from_numpy(row) for row in np.concatenate(rows, 1)]
        want = heard(brief, clips)
        assert front["audio_embeds_lengths"].tolist() == [len(each) for each in want]
        alike(got, want)
        embeds = torch.stack(want)
        with torch.no_grad():
            truth = brief.truth(inputs_embeds=embeds).logits[:, -1]
        logits = answered(run["decoder"], made["decoder"], embeds)
        torch.testing.assert_close(logits, truth, atol=1e-4 * float(truth.abs().max()), rtol=0)


# --- folders


def test_the_manifest_says_that_long_clips_are_joined(tiny: Tiny) -> None:
    made = open_checkpoint(tiny.folder)
    assert list(made.roles) == ["mel", "whisper", "projector", "decoder"]
    assert made.facts.audio == AudioFacts(RATE, "mean", 1, 30 * RATE, "joined")
    assert made.facts.dimensions.audio_tokens == 375
    assert made.facts.tokens == TokenFacts(eos=(2,), penalize_prompt=True)


def test_prompts_are_those_of_mistral(tiny: Tiny) -> None:
    """The ids are what mistral-common 1.13 writes, whose own ids these tokens have here."""
    made = open_checkpoint(tiny.folder)
    tokenizer, prompt = Tokenizer.from_str(made.tokenizer_json), made.facts.prompt

    def ids(text: str) -> list[int]:
        return tokenizer.encode(text, add_special_tokens=False).ids

    def written(turn: str, words: str) -> list[int]:
        return ids(prompt.start + turn.replace("{clips}", prompt.clip).replace("{}", words))

    question = ids("What is that?")
    assert written(prompt.turn, "What is that?") == [1, 3, 25, 24, *question, 4]
    for task, said in {"transcribe": [], "transcribe_en": ids("lang:en")}.items():
        asked = written(prompt.turns[task], prompt.tasks[task])
        assert asked == [1, 3, 25, 24, 4, *said, 34]
    assert ids(prompt.end) == [2]


def test_a_ready_tokenizer_is_taken_as_it_is(copy: Copy) -> None:
    made = open_checkpoint(copy.config)
    (copy.folder / "tekken.json").unlink()
    (copy.folder / "tokenizer.json").write_text(made.tokenizer_json, "utf-8")
    assert open_checkpoint(copy.config).tokenizer_json == made.tokenizer_json


def test_names_of_transformers_5_are_read_like_the_published_ones(copy: Copy) -> None:
    before = filled(open_checkpoint(copy.config).part("projector", "ort")).state_dict()
    copy.weights("", renamed(lambda name: f"model.{name}".replace(".model.", ".", 1)))
    copy.weights("", renamed(lambda name: name.replace("model.language_model.lm_head", "lm_head")))
    made = open_checkpoint(copy.config)
    after = filled(made.part("projector", "ort")).state_dict()
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert made.notes == ()


def changed(copy: Copy, section: str, **said: Any) -> None:
    plain = json.loads(copy.config.read_text())
    (plain[section] if section else plain).update(said)
    copy.config.write_text(json.dumps(plain))


def without_tokens(copy: Copy) -> None:
    file = copy.folder / "tekken.json"
    said = json.loads(file.read_text())
    for token in said["special_tokens"]:
        if token["token_str"] in ("[TRANSCRIBE]", "[/INST]"):
            token["token_str"] = f"<other_{token['rank']}>"
    file.write_text(json.dumps(said))


CASES: dict[str, tuple[tuple[str, ...], Callable[[Copy], Any]]] = {
    "frames that fill no row": (
        ("intermediate_size: 100, which should be the width of a few frames of 32",),
        lambda c: changed(c, "audio_config", intermediate_size=100),
    ),
    "an unknown activation": (
        ("activation 'mish' is unknown",),
        lambda c: changed(c, "", projector_hidden_act="mish"),
    ),
    "weights missing from every piece": (
        (
            "audio_tower.layers.1.fc2.bias",
            "multi_modal_projector.linear_2.weight",
            "language_model.model.norm.weight",
        ),
        lambda c: c.weights("", without("layers.1.fc2.bias", "linear_2", "model.norm.weight")),
    ),
    "a tokenizer without the tokens of a conversation": (
        ("lacks [/INST], [TRANSCRIBE]",),
        without_tokens,
    ),
    "a token for audio that no tokenizer has": (
        ("says that token 5000 stands for audio",),
        lambda c: changed(c, "", audio_token_id=5000),
    ),
    "no token for audio": (
        ("says that token None stands for audio",),
        lambda c: changed(c, "", audio_token_id=None),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_folder_that_cannot_be_followed_is_one_sentence(copy: Copy, case: str) -> None:
    names, change = CASES[case]
    change(copy)
    said = refused(copy, BadCheckpoint)
    assert all(name in said for name in names)
