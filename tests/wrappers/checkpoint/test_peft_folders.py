"""PEFT adapters as files: applied beside the weights and alone, as transformers applies them."""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from alm.errors import AlmError, BadCheckpoint, MissingFile
from demo.random_checkpoint import Recipe, make
from tests.wrappers.checkpoint.checkpoints import Copy, in_peft
from tests.wrappers.families import tiny_hf
from tests.wrappers.families.tiny_hf import Tiny
from wrappers import Checkpoint, open_checkpoint
from wrappers.checkpoint.adapters.peft_folder import FILES
from wrappers.checkpoint.weights.hollow import filled
from wrappers.families.salmonn import Salmonn

EVERYWHERE = r".*(audio_tower.(conv1|layers.0.fc1)|linear(_1)?|q_proj|down_proj)"
TEXT = r".*language_model.*(q_proj|v_proj)"
FAMILIES = {"qwen2_audio": tiny_hf.qwen2_audio, "voxtral": tiny_hf.voxtral}


@pytest.fixture(scope="module", params=FAMILIES)
def tiny(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    return FAMILIES[request.param](tmp_path_factory.mktemp("peft") / "model", 2)


@pytest.fixture(scope="module")
def qwen(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    return tiny_hf.qwen2_audio(tmp_path_factory.mktemp("peft") / "model", 2)


@torch.no_grad()
def adapted(tiny: Tiny, folder: Path, config: Any) -> tuple[Path, Any]:
    """A folder of an adapter alone, and transformers' model with it, not merged."""
    tuned = in_peft(type(tiny.truth).from_pretrained(tiny.folder), config)
    torch.manual_seed(3)
    for each in tuned.parameters():
        if each.requires_grad:
            each.add_(0.3 * torch.randn(each.shape))
    with warnings.catch_warnings():  # that it saves the table as well
        warnings.simplefilter("ignore", UserWarning)
        tuned.save_pretrained(folder)
    said(folder, base_model_name_or_path=str(tiny.folder))
    return folder, tuned


def said(folder: Path, **more: Any) -> None:
    file = folder / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | more))


def beside(adapter: Path, tiny: Tiny, folder: Path) -> Path:
    """A copy of the model with the adapter in it."""
    shutil.copytree(tiny.folder, folder)
    for file in adapter.glob("adapter_*"):
        shutil.copy(file, folder)
    return folder


@torch.no_grad()
def same(made: Checkpoint, tuned: Any) -> None:
    """Every part has the weights of peft's own merge, and the table too."""
    plain = tuned.merge_and_unload()
    theirs = dict(plain.model.named_modules())
    parts = {name: filled(made.part(name, "standard")) for name in ("whisper", "decoder")}
    bodies = {"audio_tower": parts["whisper"], "language_model": parts["decoder"].model}
    for name, body in bodies.items():
        wanted = theirs[name].state_dict()
        for key, value in body.state_dict().items():
            torch.testing.assert_close(value, wanted[key], rtol=1e-4, atol=1e-5)
    head: Any = parts["decoder"].lm_head
    torch.testing.assert_close(head.weight, plain.lm_head.weight, rtol=1e-4, atol=1e-5)
    table = theirs["language_model"].embed_tokens.weight
    torch.testing.assert_close(made.embedding().float(), table, rtol=1e-4, atol=1e-5)
    ours = [m for m in made.part("projector", "standard").modules() if isinstance(m, nn.Linear)]
    bridge = [m for m in theirs["multi_modal_projector"].modules() if isinstance(m, nn.Linear)]
    assert len(ours) == len(bridge)
    projector = filled(made.part("projector", "standard"))
    merged = [m for m in projector.modules() if isinstance(m, nn.Linear)]
    for mine, wanted in zip(merged, bridge, strict=True):
        torch.testing.assert_close(mine.weight, wanted.weight, rtol=1e-4, atol=1e-5)


def test_an_adapter_on_every_part_is_merged_beside_the_weights_and_alone(
    tiny: Tiny, tmp_path: Path
) -> None:
    config = peft.LoraConfig(r=4, lora_alpha=16, use_rslora=True, target_modules=EVERYWHERE)
    alone, tuned = adapted(tiny, tmp_path / "adapter", config)
    together = beside(alone, tiny, tmp_path / "together")
    made = open_checkpoint(together)
    assert made.facts.source["adapter"] == "LoRA"
    assert made.part("decoder", "standard").facts["merge_error"] < 1e-3
    same(open_checkpoint(alone), tuned)
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():  # transformers applies what lies beside
        theirs = type(tiny.truth).from_pretrained(together).eval()(input_ids=ids).logits
        torch.testing.assert_close(theirs, tuned(input_ids=ids).logits, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "more",
    [
        dict(bias="all"),
        dict(modules_to_save=["embed_tokens", "lm_head", "multi_modal_projector"]),
        dict(trainable_token_indices=[3, 7]),
        dict(target_modules=["q_proj", "embed_tokens"]),
        dict(use_dora=True, target_modules=["q_proj", "fc1"]),
        dict(layers_to_transform=[1], target_modules=["q_proj", "down_proj"]),
    ],
    ids=lambda more: next(iter(more)) + str(len(more)),
)
def test_what_peft_trains_besides_is_merged_too(
    qwen: Tiny, tmp_path: Path, more: dict[str, Any]
) -> None:
    fields: dict[str, Any] = dict(r=4, lora_alpha=16, target_modules=TEXT)
    alone, tuned = adapted(qwen, tmp_path / "adapter", peft.LoraConfig(**(fields | more)))
    same(open_checkpoint(alone), tuned)


@pytest.mark.parametrize(
    "config",
    [
        peft.HRAConfig(r=2, target_modules=TEXT),
        peft.HRAConfig(r=4, apply_GS=True, target_modules=TEXT, modules_to_save=["lm_head"]),
        peft.VBLoRAConfig(
            r=2, num_vectors=8, vector_length=4, topk=3, target_modules=TEXT,
            modules_to_save=["embed_tokens", "lm_head"],
        ),
        peft.LoraConfig(
            r=2, use_rslora=True, use_dora=True, target_modules=TEXT, modules_to_save=["norm"]
        ),
    ],
    ids=["HRA", "HRA made orthogonal", "VB-LoRA", "rsDoRA"],
)  # fmt: skip
def test_other_adapters_and_what_was_trained_whole_beside_them_are_merged(
    qwen: Tiny, tmp_path: Path, config: Any
) -> None:
    alone, tuned = adapted(qwen, tmp_path / "adapter", config)
    same(open_checkpoint(alone), tuned)


@pytest.mark.parametrize(
    "more, sentence",
    [
        (dict(peft_type="OFT"), "peft_type: 'OFT', an adapter that cannot be merged here"),
        (dict(init_lora_weights="pissa"), "changes the base model's weights before training"),
        (dict(layer_replication=[[0, 2]]), "layer_replication: .* not followed for LoRA"),
        (dict(target_parameters=["a"]), "target_parameters: .* not followed"),
        (dict(invented=3), "invented: '3', which is not followed"),
        (dict(r=10**9), "r is 1e.09 but the adapter's weights are of rank 4"),
        (dict(lora_alpha="x"), "lora_alpha is 'x' and no number"),
        (dict(target_modules=["q_proj", "k_proj"]), "k_proj.*of which it holds no tensors"),
        (dict(target_modules=r".*language_model.*q_proj"), "holds tensors of .*v_proj, which"),
        (dict(target_modules="("), "patterns of modules cannot be matched"),
        (dict(rank_pattern={"a{99999999999999999999}": 4}), "patterns of modules cannot be"),
        (dict(base_model_name_or_path="org/model"), "'org/model', which is no folder of a model"),
        (dict(base_model_name_or_path=None), "does not say the model it was trained on"),
    ],
)
def test_an_adapter_that_cannot_be_followed_is_refused_by_name(
    qwen: Tiny, tmp_path: Path, more: dict[str, Any], sentence: str
) -> None:
    config = peft.LoraConfig(r=4, lora_alpha=16, target_modules=TEXT)
    alone, _ = adapted(qwen, tmp_path / "adapter", config)
    said(alone, **more)
    with pytest.raises(AlmError, match=sentence):
        open_checkpoint(alone)


def test_an_adapter_without_its_weights_is_a_missing_file(qwen: Tiny, tmp_path: Path) -> None:
    config = peft.LoraConfig(r=4, target_modules=TEXT)
    alone, _ = adapted(qwen, tmp_path / "adapter", config)
    (alone / FILES[0]).unlink()
    with pytest.raises(MissingFile, match="describes an adapter, but there is no"):
        open_checkpoint(alone)


def test_another_tokenizer_beside_an_adapter_alone_is_refused(qwen: Tiny, tmp_path: Path) -> None:
    config = peft.LoraConfig(r=4, target_modules=TEXT)
    alone, _ = adapted(qwen, tmp_path / "adapter", config)
    shutil.copy(qwen.folder / "tokenizer.json", alone)
    assert open_checkpoint(alone).family == "qwen2_audio"
    (alone / "tokenizer.json").write_text("{}")
    with pytest.raises(BadCheckpoint, match="is another than that of the adapter's base model"):
        open_checkpoint(alone)


@torch.no_grad()
def test_an_adapter_in_the_llms_folder_of_a_salmonn_is_merged(tmp_path: Path) -> None:
    recipe = Recipe(window_seconds=4, speech_width=16, audio_width=0, bridge_width=48, adapter="")
    copy = Copy(make(tmp_path / "model", recipe), tmp_path)
    name = "model.layers.0.self_attn.q_proj"
    base = Salmonn(copy.config).llm_weights[f"{name}.weight"]
    low, high = torch.randn(2, base.shape[1]), torch.randn(base.shape[0], 2)
    tensors = {f"base_model.model.{name}.lora_A.weight": low}
    tensors[f"base_model.model.{name}.lora_B.weight"] = high
    save_file(tensors, copy.folder / "llm" / FILES[0])
    rule = dict(peft_type="LORA", r=2, lora_alpha=6, target_modules=["layers.0.self_attn.q_proj"])
    copy.json("llm/adapter_config.json", **rule)
    decoder = filled(open_checkpoint(copy.config).part("decoder", "standard"))
    wanted = base + 3 * high @ low
    torch.testing.assert_close(decoder.state_dict()[f"{name}.weight"], wanted)
    assert len(load_file(copy.folder / "llm" / FILES[0])) == 2
