"""SALMONN checkpoints: every form that is out there loads alike, every fault is one sentence."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from alm.facts import TokenFacts
from demo import random_checkpoint
from demo.random_checkpoint import Recipe, make
from tests.wrappers.checkpoint.checkpoints import (
    TINY,
    Copy,
    as_bin,
    in_shards,
    refused,
    renamed,
    without,
)
from wrappers import Checkpoint, open_checkpoint
from wrappers.checkpoint.weights.hollow import filled
from wrappers.families.salmonn import Salmonn

LLM = "llama_model.base_model.model."
Tensors = dict[str, Tensor]
PARTS = ("whisper", "beats", "qformer", "decoder")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("salmonn") / "model", TINY)


@pytest.fixture
def copy(tiny: Path, tmp_path: Path) -> Copy:
    return Copy(tiny, tmp_path)


def tensors(checkpoint: Checkpoint) -> Tensors:
    """All weights of all parts, and the table."""
    parts = {name: filled(checkpoint.part(name, "standard")) for name in PARTS}
    found = {f"{n}.{k}": v for n, part in parts.items() for k, v in part.state_dict().items()}
    return found | {"embed": checkpoint.embedding()}


@pytest.fixture(scope="module")
def wanted(tiny: Path) -> Tensors:
    """What the unchanged checkpoint loads to."""
    return tensors(open_checkpoint(tiny))


def same(copy: Copy, wanted: Tensors) -> Checkpoint:
    """The copy loads to the weights that were wanted."""
    made = open_checkpoint(copy.config)
    found = tensors(made)
    assert found.keys() == wanted.keys()
    assert [n for n in wanted if not torch.equal(found[n], wanted[n])] == []
    return made


# --- forms of the same checkpoint


def test_a_folder_with_a_config_is_a_checkpoint(tiny: Path) -> None:
    assert open_checkpoint(tiny.parent).facts.dimensions == open_checkpoint(tiny).facts.dimensions


def test_the_prefix_of_parallel_training_is_cut_off(copy: Copy, wanted: Tensors) -> None:
    same(copy.trained(renamed(lambda name: f"module.{name}")), wanted)


def test_leftovers_of_training_are_ignored(copy: Copy, wanted: Tensors) -> None:
    config = Salmonn(copy.config)
    table = config.llm_weights["model.embed_tokens.weight"]
    beats = config.beats_file
    assert beats
    layer = "encoder.layers.1.self_attn.relative_attention_bias.weight"
    leftovers = {
        f"beats.{layer}": beats["model"][layer],
        f"{LLM}lm_head.weight": torch.cat((table, torch.ones(1, 64))),  # tied, with a [PAD] row
        f"{LLM}model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(8),
        f"{LLM}model.layers.0.mlp.up_proj.weight.absmax": torch.ones(8),
        f"{LLM}model.layers.0.mlp.up_proj.weight.quant_map": torch.ones(16),
        f"{LLM}model.layers.0.mlp.up_proj.weight.nested_absmax": torch.ones(1),
        f"{LLM}model.layers.0.mlp.up_proj.weight.quant_state.bitsandbytes__nf4": torch.ones(4),
        "speech_Qformer.bert.embeddings.position_ids": torch.arange(4)[None],
        "speech_Qformer.bert.embeddings.word_embeddings.weight": torch.ones(4, 48),
        "speech_Qformer.bert.encoder.layer.0.intermediate.dense.weight": torch.ones(4, 48),
        "speech_Qformer.bert.encoder.layer.0.output.LayerNorm.bias": torch.ones(48),
        "speech_Qformer.cls.predictions.bias": torch.ones(4),
    }
    same(copy.trained(lambda model: model.update(leftovers)), wanted)


@pytest.mark.parametrize(
    "name",
    [
        "soft_prompt_embeddings",
        "prompt_pool.prompt_keys",
        "speech_encoder.layers.7.fc1.weight",
        "speech_encoder.adapter.weight",
        "speech_Qformer.bert.encoder.layer.0.attention.self.gate",
        "second_proj.weight",
    ],
)
def test_tensors_that_no_part_takes_are_refused_by_name(copy: Copy, name: str) -> None:
    said = refused(copy.trained(lambda model: model.update({name: torch.ones(2, 2)})))
    assert f"salmonn.pth holds what no part of the model takes: {name}" in said


@pytest.mark.parametrize(
    "folder, name, what",
    [("llm", "model.layers.2.mlp.up_proj.weight", "LLM"), ("whisper", "encoder.x", "Whisper enc")],
)
def test_weights_of_a_folder_that_no_part_takes_are_refused_by_name(
    copy: Copy, folder: str, name: str, what: str
) -> None:
    said = refused(copy.weights(folder, lambda state: state.update({name: torch.ones(2, 2)})))
    assert f"holds what no part of the {what}" in said and name.removeprefix("encoder.") in said


def test_the_state_of_the_optimizer_and_a_bare_state_dict_are_fine(
    copy: Copy, wanted: Tensors
) -> None:
    file = copy.folder / "salmonn.pth"
    plain = torch.load(file, weights_only=True)
    optimizer = {"state": {0: {"step": torch.tensor(3.0), "exp_avg": torch.ones(4)}}}
    torch.save(plain | {"optimizer": optimizer, "scaler": {"scale": 65536.0}}, file)
    same(copy, wanted)
    torch.save(plain["model"], file)
    same(copy, wanted)


def test_files_of_old_torch_are_read(copy: Copy, wanted: Tensors) -> None:
    for name in ("salmonn.pth", "beats.pt"):
        plain = torch.load(copy.folder / name, weights_only=True)
        torch.save(plain, copy.folder / name, _use_new_zipfile_serialization=False)
    same(copy, wanted)


@pytest.mark.parametrize("save", [as_bin, in_shards])
def test_folders_with_other_weight_files_are_read(
    copy: Copy, wanted: Tensors, save: Callable[[Path], None]
) -> None:
    save(copy.folder / "llm")
    save(copy.folder / "whisper")
    same(copy, wanted)


def test_an_llm_saved_without_its_head_is_read(copy: Copy, wanted: Tensors) -> None:
    same(copy.weights("llm", renamed(lambda name: name.removeprefix("model."))), wanted)


def test_a_whole_whisper_is_read(copy: Copy, wanted: Tensors) -> None:
    def change(state: Tensors) -> None:
        renamed(lambda name: f"model.{name}")(state)
        state["model.decoder.embed_tokens.weight"] = torch.ones(4, 16)

    same(copy.weights("whisper", change), wanted)


def test_absolute_paths_are_taken_as_they_are(copy: Copy, tiny: Path, wanted: Tensors) -> None:
    names = dict(
        llama_path="llm", whisper_path="whisper", beats_path="beats.pt", ckpt="salmonn.pth"
    )
    copy.settings(**{key: str(tiny.parent / name) for key, name in names.items()})
    for name in ("salmonn.pth", "beats.pt"):
        (copy.folder / name).unlink()
    same(copy, wanted)


def test_weights_that_were_trained_on_take_the_place_of_the_files(
    copy: Copy, wanted: Tensors
) -> None:
    norm, table = torch.full((16,), 3.0), torch.full((321, 64), 0.25)
    made = open_checkpoint(
        copy.trained(
            lambda model: model.update(
                {
                    "speech_encoder.layer_norm.weight": norm,
                    "beats.encoder.layer_norm.bias": norm,
                    f"{LLM}model.norm.weight": torch.full((64,), 2.0),
                    f"{LLM}model.layers.0.self_attn.q_proj.base_layer.weight": torch.ones(64, 64),
                    f"{LLM}model.embed_tokens.modules_to_save.default.weight": table,
                    f"{LLM}model.embed_tokens.original_module.weight": -table,
                }
            )
        ).config
    )
    found = tensors(made)
    assert torch.equal(found["whisper.layer_norm.weight"], norm)
    assert torch.equal(found["beats.encoder.layer_norm.bias"], norm)
    assert (found["decoder.model.norm.weight"] == 2).all()
    assert found["decoder.model.layers.0.self_attn.q_proj.weight"].mean() > 0.5
    assert found["embed"].shape == (320, 64) and (found["embed"] == 0.25).all()
    # To peft the head is no module that was trained: it keeps the table that was there before.
    assert torch.equal(found["decoder.lm_head.weight"], wanted["decoder.lm_head.weight"])


def test_a_projection_of_its_own_is_read_before_the_checkpoint(copy: Copy) -> None:
    alone = {
        "speech_llama_proj.weight": torch.ones(64, 48),
        "speech_llama_proj.bias": torch.ones(64),
    }
    torch.save({"model": alone}, copy.folder / "proj.pth")
    copy.settings(speech_llama_proj_model="proj.pth").trained(without("speech_llama_proj.bias"))
    part = tensors(open_checkpoint(copy.config))
    assert (part["qformer.speech_llama_proj.bias"] == 1).all()
    assert (part["qformer.speech_llama_proj.weight"] != 1).any()


def test_an_untied_llm_keeps_its_own_head(tmp_path: Path) -> None:
    recipe = Recipe(window_seconds=4, audio_width=0, llm_options=dict(tie_word_embeddings=False))
    config = make(tmp_path / "model", recipe)
    head = load_file(config.parent / "llm" / "model.safetensors")["lm_head.weight"]
    decoder = filled(open_checkpoint(config).part("decoder", "standard"))
    assert torch.equal(decoder.state_dict()["lm_head.weight"], head)
    bare = Copy(config, tmp_path).weights("llm", without("lm_head"))
    assert "missing: lm_head.weight" in refused(bare)
    grown = torch.cat((head, torch.zeros(1, 64)))
    bare.trained(lambda model: model.update({f"{LLM}lm_head.weight": grown}))
    decoder = filled(open_checkpoint(bare.config).part("decoder", "standard"))
    assert torch.equal(decoder.state_dict()["lm_head.weight"], head)


def test_a_pad_row_inside_the_llm_counts_when_its_config_counts_it(copy: Copy) -> None:
    def grow(state: Tensors) -> None:
        name = "model.embed_tokens.weight"
        state[name] = torch.cat((state[name], torch.zeros(1, 64)))

    copy.weights("llm", grow)
    assert "model.embed_tokens.weight is [321, 64] and not [320, 64]" in refused(copy)
    made = open_checkpoint(copy.json("llm/config.json", vocab_size=321).config)
    assert made.facts.dimensions.vocab == 321 and len(made.embedding()) == 321


# --- weights that are missing or do not fit


def test_all_that_is_missing_is_named_at_once_with_its_file(copy: Copy) -> None:
    copy.weights("whisper", without("conv1.bias", "layers.1.fc2.weight"))
    copy.weights("llm", without("layers.0.mlp.up_proj", "embed_tokens"))
    copy.trained(without("ln_speech.bias", "layer.1.crossattention.self.key.weight"))
    copy.beats(without("layers.0.fc1.bias"))
    said = refused(copy)
    for file, names in {
        "whisper/model.safetensors": ["conv1.bias", "layers.1.fc2.weight"],
        "salmonn.pth": [
            "ln_speech.bias",
            "speech_Qformer.bert.encoder.layer.1.crossattention.self.key.weight",
        ],
        "llm/model.safetensors": ["model.layers.0.mlp.up_proj.weight"],
        "beats.pt": ["encoder.layers.0.fc1.bias"],
    }.items():
        assert f"{file} does not fit its config; missing: {', '.join(names)}" in said
    assert "model.embed_tokens.weight is missing" in said


def test_all_that_is_misshapen_is_named_at_once_with_its_file(copy: Copy) -> None:
    copy.weights("whisper", lambda state: state.update({"encoder.conv1.bias": torch.ones(5)}))
    copy.weights("llm", lambda state: state.update({"model.norm.weight": torch.ones(65)}))
    copy.trained(lambda model: model.update({"speech_llama_proj.bias": torch.ones(2, 64)}))
    copy.beats(lambda model: model.update({"post_extract_proj.bias": torch.ones(17)}))
    said = refused(copy)
    assert "whisper/model.safetensors does not fit its config; misshapen: conv1.bias is [5]" in said
    assert "model.norm.weight is [65] and not [64]" in said
    assert (
        "salmonn.pth does not fit its config; misshapen: speech_llama_proj.bias is [2, 64]" in said
    )
    assert "post_extract_proj.bias is [17] and not [16]" in said


@pytest.mark.parametrize(
    "other, said",
    [
        (dict(speech_width=32), "whisper is 16 wide, but {pth} was trained with a Whisper of 32"),
        (dict(audio_width=32), "beats.pt is 16 wide, but {pth} was trained with a BEATs of 32"),
        (
            dict(llm_options=dict(hidden_size=32)),
            "llm is 64 wide, but {pth} was trained with an LLM of 32",
        ),
    ],
    ids=["Whisper", "BEATs", "LLM"],
)
def test_pieces_of_other_widths_are_named_in_words(
    copy: Copy, other: dict[str, Any], said: str
) -> None:
    sizes: dict[str, Any] = dict(speech_width=16, audio_width=16) | other
    recipe = Recipe(bridge_width=48, **sizes)
    out = recipe.llm_options.get("hidden_size", 64)
    copy.trained(lambda model: model.update(random_checkpoint.bridge(recipe, out)))
    copy.trained(without("speech_llama_proj.bias"))
    found = refused(copy)
    assert said.format(pth=copy.folder / "salmonn.pth") in found
    assert "missing: speech_llama_proj.bias" in found and "misshapen" not in found


def test_with_and_without_beats_are_not_confused(copy: Copy) -> None:
    assert "trained with a BEATs, but beats_path is empty" in refused(copy.settings(beats_path=""))
    copy.settings(beats_path="beats.pt").trained(without("ln_audio"))
    assert "missing: ln_audio.weight, ln_audio.bias" in refused(copy)


# --- what the manifest says


def test_ends_are_taken_from_the_generation_config_or_the_llms(copy: Copy) -> None:
    (copy.folder / "llm" / "generation_config.json").unlink(missing_ok=True)
    assert open_checkpoint(copy.config).facts.tokens == TokenFacts(1, (2,), ("</s>",))
    copy.json("llm/config.json", eos_token_id=[2, 7])
    assert open_checkpoint(copy.config).facts.tokens.eos == (2, 7)
    copy.json("llm/generation_config.json", eos_token_id=[5, 6])
    assert open_checkpoint(copy.config).facts.tokens.eos == (5, 6)
    copy.json("llm/generation_config.json", eos_token_id=4)
    copy.settings(end_sym="")
    assert open_checkpoint(copy.config).facts.tokens == TokenFacts(1, (4,))


def test_an_llm_that_does_not_say_its_end_is_refused(copy: Copy) -> None:
    copy.json("llm/config.json", eos_token_id=None)
    copy.json("llm/generation_config.json", eos_token_id=None)
    assert "does not say eos_token_id" in refused(copy)


def test_a_tokenizer_without_bos_leaves_it_to_the_llms_config(copy: Copy) -> None:
    copy.json("llm/tokenizer_config.json", bos_token=None)
    assert (
        open_checkpoint(copy.json("llm/config.json", bos_token_id=9).config).facts.tokens.bos == 9
    )
    copy.json("llm/config.json", bos_token_id=None)
    assert open_checkpoint(copy.config).facts.tokens.bos is None


def test_prompts_of_the_checkpoint_join_the_originals(copy: Copy) -> None:
    own = {"asr": "<Speech><SpeechHere></Speech> Write it down.", "QA": "{}", "odd": 3}
    (copy.folder / "prompts.json").write_text(json.dumps(own))
    prompt = open_checkpoint(copy.settings(test_prompt_path="prompts.json").config).facts.prompt
    assert prompt.tasks["asr"] == prompt.tasks["transcribe"] == "Write it down."
    assert "Write it down." in prompt.joined and "QA" not in prompt.tasks
    assert prompt.turn == "USER: {clips}{}\nASSISTANT:"
    assert prompt.clip == "<Speech><SpeechHere></Speech> " and prompt.end == "</s>"
