"""Folders of Qwen2.5-Omni: the thinker's, the whole model's, older and newer names, refusals."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from tokenizers import Tokenizer

import alm
from alm.errors import BadCheckpoint
from alm.facts import AudioFacts, TokenFacts
from tests.conftest import run_export
from tests.wrappers.checkpoint.checkpoints import Copy, in_peft, refused, renamed, without
from tests.wrappers.families import tiny_qwen2_5_omni
from tests.wrappers.families.tiny_hf import noise
from tests.wrappers.families.tiny_qwen2_5_omni import AUDIO, GREEDY, RATE, Tiny
from wrappers import open_checkpoint
from wrappers.checkpoint.weights.hollow import filled

ASK = "Transcribe the speech."


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    return tiny_qwen2_5_omni.make(tmp_path_factory.mktemp("plain"))


@pytest.fixture
def copy(plain: Tiny, tmp_path: Path) -> Copy:
    return Copy(plain.folder / "config.json", tmp_path)


def test_the_manifest_states_what_is_heard(plain: Tiny) -> None:
    made = open_checkpoint(plain.folder)
    assert made.roles == {
        **{"mel": "frontend", "qwen2_5_omni": "encoder"},
        **{"projector": "bridge", "decoder": "decoder"},
    }
    assert made.facts.audio == AudioFacts(RATE, "mean", 400, 100 * RATE, "each")
    assert made.facts.dimensions.audio_tokens == 2500
    assert made.facts.tokens == TokenFacts(eos=(0, 2), penalize_prompt=True)
    assert "22 weights of images and videos and 0 of the talker" in made.notes[-1]


def test_prompts_are_those_of_the_template(plain: Tiny) -> None:
    made = open_checkpoint(plain.folder)
    tokenizer, prompt = Tokenizer.from_str(made.tokenizer_json), made.facts.prompt
    text = prompt.start + prompt.turn.replace("{clips}", 2 * prompt.clip).replace("{}", ASK)
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    ids = [i for token in ids for i in [token] * (25 if token == AUDIO else 1)]
    asked = plain.asked([(ASK, [noise(RATE), noise(RATE, 1)], [])])
    assert ids == asked["input_ids"][0].tolist()


def test_the_thinker_of_the_whole_model_is_taken(tmp_path: Path) -> None:
    tiny = tiny_qwen2_5_omni.whole(tmp_path / "model")
    loaded = open_checkpoint(tiny.folder)
    assert "22 weights of images and videos and 531 of the talker and its sound" in loaded.notes[-1]
    run_export("--model", tmp_path / "model", "--no-simplify", "--out", tmp_path / "out")
    clip = noise(3 * RATE)
    answer = alm.load(tmp_path / "out", "cpu").generate(clip, "transcribe", **GREEDY)
    assert answer.token_ids == tiny.answer((ASK, [clip], []))


def test_names_of_transformers_5_are_the_same_model(plain: Tiny, copy: Copy) -> None:
    def inner(name: str) -> str:
        name = "language_model." + name.removeprefix("model.") if "model." in name[:6] else name
        return name if name.startswith("lm_head") else "model." + name

    copy.weights("", renamed(inner))
    same(open_checkpoint(copy.config), open_checkpoint(plain.folder))


@pytest.mark.parametrize("kind", ["mrope", "default"])
def test_older_names_of_the_rotation_are_the_same_model(plain: Tiny, copy: Copy, kind: str) -> None:
    said = json.loads(copy.config.read_text())
    text = said["text_config"]
    del text["rope_parameters"]
    text["rope_theta"] = 1e4
    text["rope_scaling"] = {"type": kind, "mrope_section": [2, 2, 2]}
    copy.config.write_text(json.dumps(said))
    same(open_checkpoint(copy.config), open_checkpoint(plain.folder))


def same(got: Any, want: Any) -> None:
    """All parts have equal weights and buffers."""
    assert got.facts.dimensions == want.facts.dimensions
    for name in want.parts:
        ours, theirs = (filled(made.part(name, "ort")) for made in (got, want))
        kept = dict(ours.named_buffers()) | ours.state_dict()
        wanted = dict(theirs.named_buffers()) | theirs.state_dict()
        assert kept.keys() == wanted.keys()
        assert all(torch.equal(kept[key], wanted[key]) for key in wanted), name


def changed(copy: Copy, section: str, **values: Any) -> None:
    said = json.loads(copy.config.read_text())
    (said[section] if section else said).update(values)
    copy.config.write_text(json.dumps(said))


def extracted(copy: Copy, **values: Any) -> None:
    copy.json("preprocessor_config.json", **values)


def rotated(copy: Copy, **values: Any) -> None:
    rope = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 2, 2]}
    changed(copy, "text_config", rope_parameters=rope | values)


CASES: dict[str, tuple[tuple[str, ...], Callable[[Copy], Any]]] = {
    "rotations that are no head": (
        ("mrope_section: [2, 2, 3], which do not add up to the 6 pairs of a head of 12",),
        lambda c: rotated(c, mrope_section=[2, 2, 3]),
    ),
    "rotations that are no numbers": (
        ("mrope_section: six, which do not add up",),
        lambda c: rotated(c, mrope_section="six"),
    ),
    "an unknown rotation": (
        ("unknown rope scaling 'spiral'",),
        lambda c: rotated(c, rope_type="spiral"),
    ),
    "another LLM": (
        ("text_config.model_type: 'llama'; known is qwen2_5_omni_text",),
        lambda c: changed(c, "text_config", model_type="llama"),
    ),
    "another tower": (
        ("audio_config.model_type: 'whisper'",),
        lambda c: changed(c, "audio_config", model_type="whisper"),
    ),
    "windows of more frames than positions": (
        ("n_window 100, and there are max_source_positions 90",),
        lambda c: changed(c, "audio_config", max_source_positions=90),
    ),
    "rows of another width than the LLM's": (
        ("audio_config.output_dim: 64, and the LLM's rows are 48 wide",),
        lambda c: changed(c, "audio_config", output_dim=64),
    ),
    "an unknown activation": (
        ("activation_function 'mish' is unknown",),
        lambda c: changed(c, "audio_config", activation_function="mish"),
    ),
    "an extractor of another spectrogram": (
        ("dither 0.1 and not 0", "feature_size 80 and not 20", "hop_length 200 and not 160"),
        lambda c: extracted(c, dither=0.1, feature_size=80, hop_length=200),
    ),
    "an extractor that pads in front, to no length": (
        ("chunk_length 0; it must be a whole number", "padding_side 'left'; known is 'right'"),
        lambda c: extracted(c, chunk_length=0, padding_side="left"),
    ),
    "weights missing from every piece": (
        (
            "audio_tower.layers.1.fc2.bias",
            "multi_modal_projector.proj.weight",
            "language_model.model.norm.weight",
        ),
        lambda c: c.weights("", without("layers.1.fc2.bias", "tower.proj", "model.norm.weight")),
    ),
    "a weight that no part takes": (
        ("audio_tower.extra.weight",),
        lambda c: c.weights("", lambda s: s.update({"audio_tower.extra.weight": torch.ones(3)})),
    ),
    "a token for audio that no tokenizer has": (
        ("says that token 5000 stands for audio",),
        lambda c: changed(c, "", audio_token_index=5000),
    ),
    "another token for audio in the tokenizer": (
        ("has '<|AUDIO|>' for audio in its config and '<|IMAGE|>' in its tokenizer",),
        lambda c: c.json(
            "tokenizer_config.json", extra_special_tokens={"audio_token": "<|IMAGE|>"}
        ),
    ),
    "a template that knows no clip": (
        ("its chat template takes no clip",),
        lambda c: c.json("chat_template.json", chat_template="{{ messages[0].content }}"),
    ),
    "no template": (
        ("holds no chat template that knows <|AUDIO|>",),
        lambda c: (c.folder / "chat_template.json").unlink(),
    ),
    "a whole model without a thinker": (
        ("lacks thinker_config",),
        lambda c: changed(c, "", model_type="qwen2_5_omni"),
    ),
    "a thinker beyond all limits": (
        ("thinker_config says audio_config.n_window 0; it must be a whole number from 1",),
        lambda c: changed(
            c, "", model_type="qwen2_5_omni", thinker_config={"audio_config": {"n_window": 0}}
        ),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_folder_that_cannot_be_followed_is_one_sentence(copy: Copy, case: str) -> None:
    names, change = CASES[case]
    change(copy)
    sentence = refused(copy, BadCheckpoint)
    assert all(name in sentence for name in names), sentence


def test_an_adapter_is_merged(plain: Tiny, tmp_path: Path) -> None:
    torch.manual_seed(1)
    modules = r".*language_model.*(q_proj|down_proj)|.*audio_tower\.(proj|layers\.0\.fc1)"
    tuned: Any = in_peft(plain.truth, peft.LoraConfig(r=3, lora_alpha=9, target_modules=modules))
    for name, weight in tuned.named_parameters():
        if "lora_" in name:
            weight.data.normal_(0, 0.3)
    tuned.save_pretrained(tmp_path / "adapter")
    file = tmp_path / "adapter" / "adapter_config.json"
    said = json.loads(file.read_text()) | {"base_model_name_or_path": str(plain.folder)}
    file.write_text(json.dumps(said))
    run_export("--model", tmp_path / "adapter", "--no-simplify", "--out", tmp_path / "out")
    clip = noise(3 * RATE)
    got = alm.load(tmp_path / "out", "cpu").generate(clip, "What is said?", **GREEDY)
    # Its base has the same modules, with the adapter's in them.
    wanted = Tiny(plain.folder, tuned.base_model.model).answer(("What is said?", [clip], []))
    with tuned.disable_adapter():
        bare = Tiny(plain.folder, tuned.base_model.model).answer(("What is said?", [clip], []))
    assert got.token_ids == wanted != bare
