"""SALMONN checkpoints: every form that is out there loads alike, every fault is one sentence."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from checkpoints import Copy, renamed, without
from safetensors.torch import load_file, save_file
from torch import Tensor

from alm.errors import AlmError, BadCheckpoint, MissingFile, UnknownName
from demo import random_checkpoint
from demo.random_checkpoint import Recipe, make
from wrappers import Checkpoint, open_checkpoint
from wrappers.salmonn import Salmonn

TINY = Recipe(window_seconds=4, speech_width=16, audio_width=16, bridge_width=48)
LLM = "llama_model.base_model.model."
PARTS = ("whisper", "beats", "qformer", "decoder")
Said = Callable[[Copy], Any]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("salmonn") / "model", TINY)


@pytest.fixture
def copy(tiny: Path, tmp_path: Path) -> Copy:
    return Copy(tiny, tmp_path)


def refused(copy: Copy, kind: type[AlmError] = BadCheckpoint) -> str:
    with pytest.raises(kind) as caught:
        open_checkpoint(copy.config)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def tensors(checkpoint: Checkpoint) -> dict[str, Tensor]:
    """All weights of all parts, and the table."""
    parts = {name: checkpoint.parts[name]("standard") for name in PARTS}
    found = {f"{n}.{k}": v for n, part in parts.items() for k, v in part.state_dict().items()}
    return found | {"embed": checkpoint.embedding()}


def same(copy: Copy, tiny: Path) -> Checkpoint:
    """The copy loads to the same weights as what it was copied from."""
    made, wanted = open_checkpoint(copy.config), tensors(open_checkpoint(tiny))
    found = tensors(made)
    assert found.keys() == wanted.keys()
    assert [n for n in wanted if not torch.equal(found[n], wanted[n])] == []
    return made


# --- forms of the same checkpoint


def test_a_folder_with_a_config_is_a_checkpoint(tiny: Path) -> None:
    assert open_checkpoint(tiny.parent).dimensions == open_checkpoint(tiny).dimensions


def test_the_prefix_of_parallel_training_is_cut_off(copy: Copy, tiny: Path) -> None:
    same(copy.trained(renamed(lambda name: f"module.{name}")), tiny)


def test_leftovers_of_training_are_ignored(copy: Copy, tiny: Path) -> None:
    config = Salmonn(tiny)
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
        "something_else.weight": torch.ones(2),
    }
    made = same(copy.trained(lambda model: model.update(leftovers)), tiny)
    assert any("something_else.weight" in note for note in made.notes)


def test_the_state_of_the_optimizer_and_a_bare_state_dict_are_fine(copy: Copy, tiny: Path) -> None:
    file = copy.folder / "salmonn.pth"
    plain = torch.load(file, weights_only=True)
    optimizer = {"state": {0: {"step": torch.tensor(3.0), "exp_avg": torch.ones(4)}}}
    torch.save(plain | {"optimizer": optimizer, "scaler": {"scale": 65536.0}}, file)
    same(copy, tiny)
    torch.save(plain["model"], file)
    same(copy, tiny)


def test_files_of_old_torch_are_read(copy: Copy, tiny: Path) -> None:
    for name in ("salmonn.pth", "beats.pt"):
        plain = torch.load(copy.folder / name, weights_only=True)
        torch.save(plain, copy.folder / name, _use_new_zipfile_serialization=False)
    same(copy, tiny)


def as_bin(folder: Path) -> None:
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def in_shards(folder: Path) -> None:
    state = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    places = {}
    for i, names in enumerate((list(state)[::2], list(state)[1::2])):
        shard = f"model-{i + 1:05}-of-00002.safetensors"
        save_file({name: state[name] for name in names}, folder / shard)
        places |= dict.fromkeys(names, shard)
    index = {"metadata": {}, "weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


@pytest.mark.parametrize("save", [as_bin, in_shards])
def test_folders_with_other_weight_files_are_read(
    copy: Copy, tiny: Path, save: Callable[[Path], None]
) -> None:
    save(copy.folder / "llm")
    save(copy.folder / "whisper")
    same(copy, tiny)


def test_an_llm_saved_without_its_head_is_read(copy: Copy, tiny: Path) -> None:
    same(copy.weights("llm", renamed(lambda name: name.removeprefix("model."))), tiny)


def test_a_whole_whisper_is_read(copy: Copy, tiny: Path) -> None:
    def change(state: dict[str, Tensor]) -> None:
        renamed(lambda name: f"model.{name}")(state)
        state["model.decoder.embed_tokens.weight"] = torch.ones(4, 16)

    same(copy.weights("whisper", change), tiny)


def test_absolute_paths_are_taken_as_they_are(copy: Copy, tiny: Path) -> None:
    names = dict(
        llama_path="llm", whisper_path="whisper", beats_path="beats.pt", ckpt="salmonn.pth"
    )
    copy.settings(**{key: str(tiny.parent / name) for key, name in names.items()})
    for name in ("salmonn.pth", "beats.pt"):
        (copy.folder / name).unlink()
    same(copy, tiny)


def test_weights_that_were_trained_on_take_the_place_of_the_files(copy: Copy) -> None:
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
    assert (found["decoder.lm_head.weight"] == 0.25).all()


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
    decoder = open_checkpoint(config).parts["decoder"]("standard")
    assert torch.equal(decoder.state_dict()["lm_head.weight"], head)
    bare = Copy(config, tmp_path).weights("llm", without("lm_head"))
    assert "missing: lm_head.weight" in refused(bare)
    grown = torch.cat((head, torch.zeros(1, 64)))
    bare.trained(lambda model: model.update({f"{LLM}lm_head.weight": grown}))
    decoder = open_checkpoint(bare.config).parts["decoder"]("standard")
    assert torch.equal(decoder.state_dict()["lm_head.weight"], head)


def test_a_pad_row_inside_the_llm_counts_when_its_config_counts_it(copy: Copy) -> None:
    def grow(state: dict[str, Tensor]) -> None:
        name = "model.embed_tokens.weight"
        state[name] = torch.cat((state[name], torch.zeros(1, 64)))

    copy.weights("llm", grow)
    assert "model.embed_tokens.weight is [321, 64] and not [320, 64]" in refused(copy)
    made = open_checkpoint(copy.json("llm/config.json", vocab_size=321).config)
    assert made.dimensions["vocab"] == 321 and len(made.embedding()) == 321


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
    recipe = Recipe(bridge_width=48, **(dict(speech_width=16, audio_width=16) | other))
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


# --- files that are no weights


class Code:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.mark),)


@pytest.mark.parametrize("new", [True, False], ids=["zip", "old"])
def test_code_in_a_checkpoint_is_refused_and_not_run(copy: Copy, new: bool) -> None:
    mark, file = copy.folder / "was_run", copy.folder / "salmonn.pth"
    torch.save({"model": Code(mark)}, file, _use_new_zipfile_serialization=new)
    said = refused(copy)
    assert "salmonn.pth holds more than tensors and plain data" in said
    assert not mark.exists()


@pytest.mark.parametrize("share", [0, 0.01, 0.3, 0.99])
@pytest.mark.parametrize("new", [True, False], ids=["zip", "old"])
@pytest.mark.parametrize("name", ["salmonn.pth", "beats.pt"])
def test_a_truncated_torch_file_is_refused(copy: Copy, name: str, new: bool, share: float) -> None:
    file = copy.folder / name
    plain = torch.load(file, weights_only=True)
    torch.save(plain, file, _use_new_zipfile_serialization=new)
    file.write_bytes(file.read_bytes()[: int(share * file.stat().st_size)])
    assert f"{name} " in refused(copy)


@pytest.mark.parametrize("share", [0, 0.01, 0.5])
@pytest.mark.parametrize("folder", ["whisper", "llm"])
def test_a_truncated_safetensors_file_is_refused(copy: Copy, folder: str, share: float) -> None:
    file = copy.folder / folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[: int(share * file.stat().st_size)])
    assert f"{folder}/model.safetensors is no readable safetensors file" in refused(copy)


@pytest.mark.parametrize("held", [[1, 2], {"model": [1]}, {"epoch": 3}, "text", torch.ones(2)])
def test_a_torch_file_that_is_no_checkpoint_is_refused(copy: Copy, held: Any) -> None:
    torch.save(held, copy.folder / "salmonn.pth")
    assert "salmonn.pth holds no state dict under `model`" in refused(copy)
    torch.save(held, copy.folder / "beats.pt")
    with pytest.raises(BadCheckpoint, match="beats.pt is no BEATs checkpoint"):
        _ = Salmonn(copy.config).beats_file


@pytest.mark.parametrize("name", ["../../other.safetensors", "/etc/passwd", "sub/x.safetensors"])
def test_an_index_may_not_point_out_of_its_folder(copy: Copy, name: str) -> None:
    in_shards(copy.folder / "llm")
    index = copy.folder / "llm" / "model.safetensors.index.json"
    said = json.loads(index.read_text())
    said["weight_map"]["model.norm.weight"] = name
    index.write_text(json.dumps(said))
    assert f"names the shard {name!r}, which is not beside it" in refused(copy)


def test_an_index_without_its_shards_or_its_map_is_refused(copy: Copy) -> None:
    in_shards(copy.folder / "llm")
    (copy.folder / "llm" / "model-00002-of-00002.safetensors").unlink()
    assert "shards that are not there: model-00002-of" in refused(copy, MissingFile)
    (copy.folder / "llm" / "model.safetensors.index.json").write_text("{}")
    assert "index.json has no weight_map" in refused(copy)


# --- configs


CONFIGS: dict[str, tuple[type[AlmError], str, Said]] = {
    "no BEATs file": (
        MissingFile,
        "says beats_path: gone.pt, but there is no",
        lambda c: c.settings(beats_path="gone.pt"),
    ),
    "no Whisper folder": (
        MissingFile,
        "says whisper_path: openai/whisper-large-v2, but there is no",
        lambda c: c.settings(whisper_path="openai/whisper-large-v2"),
    ),
    "a checkpoint that is a folder": (
        MissingFile,
        "there is no file",
        lambda c: c.settings(ckpt="llm"),
    ),
    "an LLM that is a file": (
        MissingFile,
        "there is no",
        lambda c: c.settings(llama_path="beats.pt"),
    ),
    "a projection that is not there": (
        MissingFile,
        "there is no file",
        lambda c: c.settings(speech_llama_proj_model="gone.safetensors"),
    ),
    "no llama_path": (
        BadCheckpoint,
        "does not say `llama_path`",
        lambda c: c.settings(llama_path=None),
    ),
    "no whisper_path": (
        BadCheckpoint,
        "does not say `whisper_path`",
        lambda c: c.settings(whisper_path=None),
    ),
    "no ckpt": (BadCheckpoint, "does not say `ckpt`", lambda c: c.settings(ckpt=None)),
    "no Q-Former": (
        BadCheckpoint,
        "says use_speech_Qformer: False",
        lambda c: c.settings(use_speech_Qformer=False),
    ),
    "a number that is none": (
        BadCheckpoint,
        "says second_stride: 'often'; it must be above zero",
        lambda c: c.settings(second_stride="often"),
    ),
    "a rank of zero": (BadCheckpoint, "says lora_rank: 0", lambda c: c.settings(lora_rank=0)),
    "an endless window": (
        BadCheckpoint,
        "says second_per_window: inf",
        lambda c: c.settings(second_per_window=float("inf")),
    ),
    "a window longer than Whisper's": (
        BadCheckpoint,
        "says windows of 250 frames every 17; there are 200",
        lambda c: c.settings(second_per_window=5),
    ),
    "a stride of no frame": (
        BadCheckpoint,
        "says windows of 17 frames every 0; there are 200",
        lambda c: c.settings(second_stride=0.001),
    ),
    "another number of queries": (
        BadCheckpoint,
        "says num_speech_query_token: 2, but",
        lambda c: c.settings(num_speech_query_token=2),
    ),
    "heads that do not divide the bridge": (
        BadCheckpoint,
        "a Q-Former of width 48 cannot have 5 heads",
        lambda c: c.settings(qformer_heads=5),
    ),
    "a template without a place": (
        BadCheckpoint,
        "prompt_template: 'USER:'; it must hold one {}",
        lambda c: c.settings(prompt_template="USER:"),
    ),
    "another window than the positions": (
        BadCheckpoint,
        "chunk_length 30 (s), which are 1500 frames, but Whisper's config.json beside it says "
        "max_source_positions 200",
        lambda c: c.json("whisper/preprocessor_config.json", chunk_length=30),
    ),
    "a window of no number": (
        BadCheckpoint,
        "says chunk_length '4'",
        lambda c: c.json("whisper/preprocessor_config.json", chunk_length="4"),
    ),
    "an LLM nobody knows": (
        BadCheckpoint,
        "llm/config.json says model_type: unknown llm 'mamba'; there is: gemma2, llama, qwen2",
        lambda c: c.json("llm/config.json", model_type="mamba"),
    ),
    "an LLM that is quantised": (
        BadCheckpoint,
        "describes quantised weights",
        lambda c: c.json("llm/config.json", quantization_config=dict(load_in_4bit=True)),
    ),
    "an LLM whose config contradicts itself": (
        BadCheckpoint,
        "llm/config.json describes no model",
        lambda c: c.json("llm/config.json", hidden_size="wide"),
    ),
    "an LLM of another activation": (
        BadCheckpoint,
        "unknown activation 'mish'",
        lambda c: c.json("llm/config.json", hidden_act="mish"),
    ),
    "a Whisper of another activation": (
        BadCheckpoint,
        "activation_function 'mish' is unknown",
        lambda c: c.json("whisper/config.json", activation_function="mish"),
    ),
    "no tokenizer": (
        MissingFile,
        "no tokenizer.json and no tokenizer.model",
        lambda c: (c.folder / "llm" / "tokenizer.json").unlink(),
    ),
    "no weights of the LLM": (
        MissingFile,
        "holds no weights; looked for model.safetensors",
        lambda c: (c.folder / "llm" / "model.safetensors").unlink(),
    ),
    "no config of the LLM": (
        MissingFile,
        "there is no file",
        lambda c: (c.folder / "llm" / "config.json").unlink(),
    ),
    "a damaged config of Whisper": (
        BadCheckpoint,
        "whisper/config.json is not JSON",
        lambda c: (c.folder / "whisper" / "config.json").write_text("{"),
    ),
    "a config of Whisper that is a list": (
        BadCheckpoint,
        "whisper/config.json holds no JSON object",
        lambda c: (c.folder / "whisper" / "config.json").write_text("[]"),
    ),
}


@pytest.mark.parametrize("case", CONFIGS)
def test_a_config_that_cannot_be_followed_is_one_sentence(copy: Copy, case: str) -> None:
    kind, said, change = CONFIGS[case]
    change(copy)
    assert said in refused(copy, kind)


def test_a_config_that_is_no_yaml_is_refused_with_its_line(copy: Copy) -> None:
    copy.config.write_text("model:\n  llama_path: [llm\n  ckpt: x\n")
    said = refused(copy)
    assert "config.yaml is no readable YAML" in said and "line 3" in said


@pytest.mark.parametrize("text", ["", "[]", "model: 3", "model:", "other: {a: 1}", "\0"])
def test_what_is_no_salmonn_config_is_answered_with_what_is(copy: Copy, text: str) -> None:
    copy.config.write_text(text)
    assert "known are salmonn: the original's config.yaml" in refused(copy, UnknownName)


def test_a_section_that_is_none_is_refused(copy: Copy) -> None:
    plain = yaml.safe_load(copy.config.read_text())
    copy.config.write_text(yaml.safe_dump(plain | {"generate": "greedy"}))
    assert "`generate` is 'greedy' and not a section" in refused(copy)


def test_no_such_path_is_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(MissingFile, match="there is no .*nowhere"):
        open_checkpoint(tmp_path / "nowhere")


# --- what the manifest says


def test_ends_are_taken_from_the_generation_config_or_the_llms(copy: Copy) -> None:
    (copy.folder / "llm" / "generation_config.json").unlink(missing_ok=True)
    assert open_checkpoint(copy.config).tokens == {"bos": 1, "eos": [2], "stop_strings": ["</s>"]}
    copy.json("llm/config.json", eos_token_id=[2, 7])
    assert open_checkpoint(copy.config).tokens["eos"] == [2, 7]
    copy.json("llm/generation_config.json", eos_token_id=[5, 6])
    assert open_checkpoint(copy.config).tokens["eos"] == [5, 6]
    copy.json("llm/generation_config.json", eos_token_id=4)
    copy.settings(end_sym="")
    assert open_checkpoint(copy.config).tokens == {"bos": 1, "eos": [4], "stop_strings": []}


def test_an_llm_that_does_not_say_its_end_is_refused(copy: Copy) -> None:
    copy.json("llm/config.json", eos_token_id=None)
    copy.json("llm/generation_config.json", eos_token_id=None)
    assert "does not say eos_token_id" in refused(copy)


def test_a_tokenizer_without_bos_leaves_it_to_the_llms_config(copy: Copy) -> None:
    copy.json("llm/tokenizer_config.json", bos_token=None)
    assert open_checkpoint(copy.json("llm/config.json", bos_token_id=9).config).tokens["bos"] == 9
    copy.json("llm/config.json", bos_token_id=None)
    assert open_checkpoint(copy.config).tokens["bos"] is None


def test_prompts_of_the_checkpoint_join_the_originals(copy: Copy) -> None:
    own = {"asr": "<Speech><SpeechHere></Speech> Write it down.", "QA": "{}", "odd": 3}
    (copy.folder / "prompts.json").write_text(json.dumps(own))
    prompt = open_checkpoint(copy.settings(test_prompt_path="prompts.json").config).prompt
    assert prompt["tasks"]["asr"] == prompt["tasks"]["transcribe"] == "Write it down."
    assert "Write it down." in prompt["joined"] and "QA" not in prompt["tasks"]
    assert prompt["template"] == "USER: <Speech><SpeechHere></Speech> {}\nASSISTANT:"
