"""Qwen2-Audio: every form of a folder is read alike, and what is wrong with one is named."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from alm.errors import BadCheckpoint, MissingFile, UnknownName
from alm.facts import AudioFacts, TokenFacts
from tests.wrappers.checkpoint.checkpoints import Copy, as_bin, in_shards, refused, renamed, without
from tests.wrappers.checkpoint.test_nf4 import CONFIG, packed
from tests.wrappers.families import tiny_hf
from tests.wrappers.families.tiny_hf import RATE, Tiny
from wrappers import open_checkpoint, with_role
from wrappers.checkpoint.weights.hollow import filled


@pytest.fixture(scope="module")
def brief(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    """A window of 2 s."""
    return tiny_hf.qwen2_audio(tmp_path_factory.mktemp("brief"), seconds=2)


@pytest.fixture
def copy(brief: Tiny, tmp_path: Path) -> Copy:
    return Copy(brief.folder / "config.json", tmp_path)


# --- folders


def test_the_parts_come_in_the_order_of_a_run_with_their_roles(brief: Tiny) -> None:
    made = open_checkpoint(brief.folder)
    assert made.family == "qwen2_audio" and made.facts.source["llm"] == "qwen2"
    assert list(made.roles.items()) == [
        ("mel", "frontend"),
        ("whisper", "encoder"),
        ("projector", "bridge"),
        ("decoder", "decoder"),
    ]
    assert made.facts.audio == AudioFacts(RATE, "mean", 400, 2 * RATE, "each")
    assert made.facts.dimensions.audio_tokens == 50 and made.facts.dimensions.hidden == 48
    assert made.facts.tokens == TokenFacts(
        eos=(
            0,
            2,
        ),
        penalize_prompt=True,
    )
    assert made.facts.generation["max_new_tokens"] == 8
    assert made.facts.generation["repetition_penalty"] == 1.1
    assert made.facts.generation["num_beams"] == 1 and not made.facts.generation["do_sample"]


def test_the_published_template_is_said_as_turns(brief: Tiny) -> None:
    prompt = open_checkpoint(brief.folder).facts.prompt
    assert prompt.start == "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
    assert prompt.turn == ("<|im_start|>user\n{clips}{}<|im_end|>\n<|im_start|>assistant\n")
    assert prompt.clip == "Audio {n}: <|audio_bos|><|AUDIO|><|audio_eos|>\n"
    assert prompt.end == "<|im_end|>\n" and prompt.placeholder == "<|AUDIO|>"
    assert set(prompt.joined) < set(prompt.tasks.values())


def test_a_folder_without_a_template_has_that_of_transformers(copy: Copy) -> None:
    with_template = open_checkpoint(copy.config).facts.prompt
    (copy.folder / "chat_template.json").unlink()
    assert open_checkpoint(copy.config).facts.prompt == with_template


def tensors(folder: Path) -> dict[str, Tensor]:
    """All weights of all parts, by part and name, and the table."""
    made = open_checkpoint(folder)
    found = {"embed": made.embedding()}
    for name, load in made.parts.items():
        found |= {f"{name}.{n}": t for n, t in filled(load()).state_dict().items()}
    return found


def newer(name: str) -> str:
    """A published name -> what transformers 5 calls the weight."""
    if name == "language_model.lm_head.weight":
        return "lm_head.weight"
    return "model." + name.replace("language_model.model.", "language_model.")


FORMS: dict[str, Callable[[Copy], Any]] = {
    "names of transformers 5": lambda copy: copy.weights("", renamed(newer)),
    "names of a bare model": lambda copy: copy.weights(
        "", renamed(lambda n: newer(n).removeprefix("model."))
    ),
    "shards": lambda copy: in_shards(copy.folder),
    "pytorch_model.bin": lambda copy: as_bin(copy.folder),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_a_folder_is_the_same_model(copy: Copy, brief: Tiny, form: str) -> None:
    FORMS[form](copy)
    got, want = tensors(copy.folder), tensors(brief.folder)
    assert got.keys() == want.keys()
    assert all(torch.equal(got[name], want[name]) for name in want)


def test_a_tied_llm_without_a_head_takes_its_table(copy: Copy) -> None:
    copy.weights("", without("lm_head"))
    assert "missing: language_model.lm_head.weight" in refused(copy)
    said = json.loads(copy.config.read_text())
    said["text_config"]["tie_word_embeddings"] = True
    copy.config.write_text(json.dumps(said))
    found = tensors(copy.folder)
    assert torch.equal(found["decoder.lm_head.weight"], found["embed"])


def test_a_folder_in_nf4_is_the_model_of_its_dequantized_weights(copy: Copy) -> None:
    names = ("audio_tower.layers.0.fc1.weight", "language_model.model.layers.1.mlp.up_proj.weight")
    meant: dict[str, Tensor] = {}

    def change(state: dict[str, Tensor]) -> None:
        for name in names:
            pieces, meant[name] = packed(state.pop(name), "bfloat16")
            state.update({f"{name}.{piece}".rstrip("."): t for piece, t in pieces.items()})

    copy.weights("", change).json("config.json", quantization_config=CONFIG)
    found = tensors(copy.folder)
    assert torch.equal(found["whisper.layers.0.fc1.weight"], meant[names[0]].float())
    assert torch.equal(found["decoder.model.layers.1.mlp.up_proj.weight"], meant[names[1]].float())
    (note,) = open_checkpoint(copy.config).notes
    assert "is quantized by bitsandbytes (2 weights in NF4)" in note


def test_an_older_folder_that_leaves_sizes_to_transformers_is_read(copy: Copy) -> None:
    said = json.loads(copy.config.read_text())
    del said["text_config"]["rope_parameters"], said["audio_config"]["activation_function"]
    said["text_config"]["rope_theta"] = 10000
    copy.config.write_text(json.dumps(said))
    assert open_checkpoint(copy.config).facts.dimensions.layers == 2


def test_weights_that_no_part_takes_are_refused_by_name(copy: Copy) -> None:
    old = {"language_model.model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(6)}
    copy.weights("", lambda state: state.update(old))
    assert open_checkpoint(copy.config).notes == ()
    copy.weights("", lambda state: state.update({"audio_tower.other.weight": torch.ones(2)}))
    assert "no part of the model takes: audio_tower.other.weight" in refused(copy)


# --- what is refused


def test_all_that_is_wrong_with_the_weights_is_named_at_once(copy: Copy) -> None:
    copy.weights("", without("audio_tower.conv1.bias", "layers.0.mlp.up_proj", "linear.bias"))
    copy.weights("", lambda state: state.update({"audio_tower.conv2.bias": torch.ones(5)}))
    copy.json("preprocessor_config.json", feature_size=128, chunk_length=30)
    said = refused(copy)
    assert "model.safetensors does not fit its config" in said
    for name in (
        "audio_tower.conv1.bias",
        "language_model.model.layers.0.mlp.up_proj.weight",
        "multi_modal_projector.linear.bias",
        "audio_tower.conv2.bias is [5] and not [32]",
        "feature_size 128 and not 80",
        "chunk_length 30 and not 2",
    ):
        assert name in said


def test_settings_are_read_where_newer_processors_write_them(copy: Copy) -> None:
    old = copy.folder / "preprocessor_config.json"
    copy.json("processor_config.json", feature_extractor=json.loads(old.read_text()))
    old.unlink()
    assert open_checkpoint(copy.config).facts.audio.window_samples == 2 * RATE
    copy.json("processor_config.json", feature_extractor={"hop_length": 80})
    assert "processor_config.json says hop_length 80 and not 160" in refused(copy)


def test_an_llm_of_another_width_is_named(copy: Copy) -> None:
    said = json.loads(copy.config.read_text())
    said["text_config"] |= {"hidden_size": 64}
    copy.config.write_text(json.dumps(said))
    assert "multi_modal_projector.linear.weight is [48, 32] and not [64, 32]" in refused(copy)


def changed(copy: Copy, section: str, **said: Any) -> None:
    plain = json.loads(copy.config.read_text())
    (plain[section] if section else plain).update(said)
    copy.config.write_text(json.dumps(plain))


CASES: dict[str, tuple[type[Exception], str, Callable[[Copy], Any]]] = {
    "an LLM nobody knows": (
        BadCheckpoint,
        "says text_config.model_type: unknown llm 'mpt'; there is: " + ", ".join(with_role("llm")),
        lambda c: changed(c, "text_config", model_type="mpt"),
    ),
    "another tower": (
        BadCheckpoint,
        "says audio_config.model_type: 'voxtral_encoder'; known is qwen2_audio_encoder",
        lambda c: changed(c, "audio_config", model_type="voxtral_encoder"),
    ),
    "quantized by another tool": (
        BadCheckpoint,
        "describes quantised weights",
        lambda c: changed(c, "", quantization_config={"quant_method": "gptq", "bits": 4}),
    ),
    "a config that contradicts itself": (
        BadCheckpoint,
        "config.json says text_config.hidden_size 'wide'",
        lambda c: changed(c, "text_config", hidden_size="wide"),
    ),
    "a token for audio that is none": (
        BadCheckpoint,
        "says that token 299 stands for audio",
        lambda c: changed(c, "", audio_token_index=299),
    ),
    "no end of an answer": (
        BadCheckpoint,
        "does not say eos_token_id",
        lambda c: (
            (c.folder / "generation_config.json").write_text("{}")
            and (c.folder / "tokenizer_config.json").write_text("{}")
        ),
    ),
    "no tokenizer": (
        MissingFile,
        "no tokenizer.json and no tokenizer.model, and no tekken.json",
        lambda c: (c.folder / "tokenizer.json").unlink(),
    ),
    "no weights": (
        MissingFile,
        "holds no weights",
        lambda c: (c.folder / "model.safetensors").unlink(),
    ),
    "a template that names no clip": (
        BadCheckpoint,
        "chat_template.jinja: its chat template takes no clip",
        lambda c: (c.folder / "chat_template.jinja").write_text("{{ messages[0].role }}"),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_folder_that_cannot_be_followed_is_one_sentence(copy: Copy, case: str) -> None:
    kind, said, change = CASES[case]
    change(copy)
    assert said in refused(copy, kind)  # pyright: ignore[reportArgumentType]


def test_what_is_wrong_with_the_config_does_not_hide_what_is_wrong_beside_it(copy: Copy) -> None:
    changed(copy, "text_config", model_type="mpt")
    copy.json("preprocessor_config.json", n_fft=512)
    copy.weights("", without("audio_tower.conv1.bias"))
    said = refused(copy)
    assert said.count("unknown llm 'mpt'") == 1
    assert "n_fft 512 and not 400" in said and "missing: audio_tower.conv1.bias" in said


# --- which family it is


def test_a_folder_and_its_config_are_the_same_checkpoint(brief: Tiny) -> None:
    one, other = open_checkpoint(brief.folder), open_checkpoint(brief.folder / "config.json")
    assert one.facts.source == other.facts.source


def test_another_model_is_answered_with_the_families_known(copy: Copy) -> None:
    changed(copy, "", model_type="vibevoice_asr")
    said = refused(copy, UnknownName)
    assert "its config.json says model_type: 'vibevoice_asr'" in said
    assert "salmonn: " in said and " ... " not in said  # none is left out for want of room
    types = said.partition("a Hugging Face folder whose config.json says model_type: ")[2]
    assert {"qwen2_audio", "voxtral", "qwen3_asr"} <= set(types.split(", "))


@pytest.mark.parametrize("text", ["", "{", "[]", '{"model_type": 3}', "\0", "[" * 100_000])
def test_a_config_that_is_none_is_no_model(copy: Copy, text: str) -> None:
    copy.config.write_text(text)
    assert "is no model that is known here; known are" in refused(copy, UnknownName)


def test_a_fingerprint_changes_with_the_weights(copy: Copy) -> None:
    before = open_checkpoint(copy.config).facts.source["fingerprint"]
    copy.weights("", lambda state: state["audio_tower.conv1.bias"].add_(1))
    assert open_checkpoint(copy.config).facts.source["fingerprint"] != before
    shutil.copy(copy.folder / "tokenizer.json", copy.folder / "more.json")
    assert open_checkpoint(copy.config).facts.source["fingerprint"] != before
