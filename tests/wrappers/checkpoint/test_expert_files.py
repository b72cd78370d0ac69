"""Experts as files name them: published names and transformers' own load alike, one at a time."""

from __future__ import annotations

import weakref
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from alm.errors import BadCheckpoint
from tests.wrappers.checkpoint.checkpoints import in_peft
from tests.wrappers.parts.test_decoders import make
from wrappers.checkpoint import llm_files
from wrappers.checkpoint.adapters import adapter_faults, peft_folder
from wrappers.checkpoint.weights.experts import fused
from wrappers.checkpoint.weights.tensors import Weights, open_folder

NAMES = ("qwen3 moe", "qwen2 moe", "mixtral")


@pytest.fixture(scope="module", params=NAMES)
def saved(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A model of transformers, and the folder that its save_pretrained left."""
    truth, _ = make(request.param)
    folder = tmp_path_factory.mktemp("saved")
    truth.save_pretrained(folder)
    return truth, folder


def loaded(folder: Path) -> Weights:
    return llm_files.named(open_folder(folder))


def test_what_save_pretrained_leaves_has_a_name_for_every_expert(saved: Any) -> None:
    _, folder = saved
    stored = load_file(folder / "model.safetensors")
    assert any(".experts.0." in name for name in stored)
    assert not any("gate_up_proj" in name for name in stored)


def test_both_layouts_load_to_the_same(saved: Any, tmp_path: Path) -> None:
    truth, folder = saved
    wanted = {n: t.contiguous() for n, t in truth.state_dict().items()}
    save_file(wanted, tmp_path / "model.safetensors")
    spec = llm_files.read_spec(folder)
    for weights in (loaded(folder), loaded(tmp_path)):
        assert llm_files.faults(spec, weights) == []
        assert weights.shapes == {n: tuple(t.shape) for n, t in wanted.items()}
        assert [n for n in wanted if not torch.equal(weights[n], wanted[n])] == []


def test_a_missing_an_odd_and_a_double_expert_are_named_at_once(saved: Any, tmp_path: Path) -> None:
    _, folder = saved
    state = load_file(folder / "model.safetensors")
    first = next(n for n in sorted(state) if ".experts.1." in n)
    del state[first]
    save_file(state, tmp_path / "model.safetensors")
    with pytest.raises(BadCheckpoint, match=r"experts\.1\.\w+\.weight is missing"):
        loaded(tmp_path)
    state[first] = torch.zeros(3, 5)
    save_file(state, tmp_path / "model.safetensors")
    with pytest.raises(BadCheckpoint, match=r"experts\.1\.\w+\.weight is \[3, 5\] and not"):
        loaded(tmp_path)


def test_a_layer_with_its_experts_both_ways_is_refused(saved: Any, tmp_path: Path) -> None:
    truth, folder = saved
    name = next(n for n in truth.state_dict() if n.endswith("experts.gate_up_proj"))
    state = load_file(folder / "model.safetensors") | {name: truth.state_dict()[name].clone()}
    save_file(state, tmp_path / "model.safetensors")
    with pytest.raises(BadCheckpoint, match=f"{name} is there, and so are matrices of single"):
        loaded(tmp_path)


def test_one_expert_is_held_at_a_time_and_nothing_is_read_before() -> None:
    alive: list[weakref.ref[Tensor]] = []
    most = 0

    def read() -> Tensor:
        nonlocal most
        made = torch.ones(4, 6, dtype=torch.bfloat16)
        alive.append(weakref.ref(made))
        most = max(most, sum(ref() is not None for ref in alive))
        return made

    weights = Weights("here")
    for at in range(50):
        for leaf in ("gate_proj", "up_proj", "down_proj"):
            shape = (6, 4) if leaf == "down_proj" else (4, 6)
            weights.add(f"model.layers.0.mlp.experts.{at}.{leaf}.weight", shape, read)
    whole = fused(weights)
    assert not alive
    made = whole["model.layers.0.mlp.experts.gate_up_proj"]
    assert made.shape == (50, 8, 6) and made.dtype == torch.bfloat16
    assert len(alive) >= 100 and most <= 3


def adapter_faults_of(folder: Path, change: dict[str, Tensor], **targets: Any) -> list[str]:
    """What is said of a Qwen2 MoE folder with a LoRA beside it, and these tensors more in that."""
    truth, _ = make("qwen2 moe")
    truth.save_pretrained(folder)
    in_peft(truth, peft.LoraConfig(r=2, **targets)).save_pretrained(folder)
    file = folder / "adapter_model.safetensors"
    save_file(load_file(file) | change, file)
    adapter = peft_folder.read(folder, tied={})
    return adapter_faults.faults(llm_files.with_table(llm_files.read_spec(folder)), adapter)


@pytest.mark.parametrize(
    "names", [["q_proj", "shared_expert.up_proj", "shared_expert_gate"], "all-linear"]
)
def test_an_adapter_of_the_shared_expert_and_of_attention_is_taken(
    tmp_path: Path, names: list[str] | str
) -> None:
    assert adapter_faults_of(tmp_path, {}, target_modules=names) == []


def test_an_adapter_of_experts_is_refused_with_the_way_out(tmp_path: Path) -> None:
    name = "base_model.model.model.layers.0.mlp.experts.1.up_proj.lora_"
    more = {f"{name}A.weight": torch.ones(2, 32), f"{name}B.weight": torch.ones(20, 2)}
    (said,) = adapter_faults_of(tmp_path, more, target_modules=["q_proj"])
    assert "mlp.experts.1.up_proj; experts of a mixture lie in one tensor" in said
    with pytest.raises(BadCheckpoint, match="target_parameters: .* not followed for LoRA; merge"):
        adapter_faults_of(tmp_path, {}, target_parameters=["mlp.experts.down_proj"])
