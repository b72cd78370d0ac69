"""bench/asr_peers.py: its weights, its names in other layouts, and its page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from bench import asr_peers, real_hf
from bench.beside import asr, asr_gguf
from bench.published import MODELS

LAYER = "model.language_model.layers.0."


def test_small_are_the_outputs_of_attention_and_rows_at_both_ends(tmp_path: Path) -> None:
    names = (LAYER + "self_attn.o_proj.weight", LAYER + "mlp.up_proj.weight", asr_gguf.EMBEDDING)
    before = {name: torch.randn(600, 8).bfloat16() for name in names}
    save_file(before, tmp_path / "model.safetensors")
    asr.endless(tmp_path)
    after = load_file(tmp_path / "model.safetensors")
    attention, mlp, table = (after[name] for name in names)
    assert torch.equal(attention, before[names[0]] / 64)
    assert torch.equal(mlp, before[names[1]])
    assert torch.equal(table[256:-256], before[names[2]][256:-256])
    for ends in (slice(256), slice(-256, None)):
        assert torch.equal(table[ends], before[names[2]][ends] / 64)


@pytest.mark.parametrize("layout", asr_gguf.ARCHITECTURES)
def test_each_tensor_has_a_name_of_its_own(layout: str) -> None:
    config = MODELS["qwen3_asr_0.6b"].config(2, 2)
    names = [slot.name for slot in real_hf.slots(config)]
    assert len({asr_gguf.named(name, layout) for name in names}) == len(names) > 60
    with pytest.raises(KeyError):
        asr_gguf.named("model.other.weight", layout)


def test_names_are_those_of_the_converters() -> None:
    said = {name: [asr_gguf.named(name, each) for each in asr_gguf.ARCHITECTURES] for name in NAMES}
    assert said == NAMES


NAMES = {
    "model.audio_tower.conv2d1.bias": ["enc.conv.0.bias", "audio.conv.1.bias"],
    "model.audio_tower.ln_post.weight": ["enc.ln_post.weight", "audio.ln_post.weight"],
    "model.multi_modal_projector.linear_2.bias": ["enc.proj2.bias", "audio.proj2.bias"],
    "model.audio_tower.layers.3.fc1.weight": [
        "enc.blocks.3.ffn.fc1.weight",
        "audio.blk.3.ffn_up.weight",
    ],
    LAYER + "self_attn.o_proj.weight": ["dec.blocks.0.attn.o.weight", "blk.0.attn_output.weight"],
    "model.language_model.norm.weight": ["dec.output_norm.weight", "output_norm.weight"],
    asr_gguf.EMBEDDING: ["dec.token_embd.weight", "token_embd.weight"],
}


def test_the_page_has_a_row_for_each_and_says_who_disturbed(tmp_path: Path) -> None:
    site = asr_peers.Site(tmp_path, 90, 2, 60.0)
    site.files("ours").mkdir(parents=True)
    (site.files("ours") / "decoder.onnx").write_bytes(bytes(3_000_000))
    site.files("crispasr").write_bytes(bytes(7_000_000))
    common: dict[str, Any] = dict(load_s=1.0, anon_mb=80.0, others=0.0)
    ours = dict(
        first=[900.0], step=[20.0], total=[2700.0, 3000.0, 9000.0], busy=[4e3], encode=[400.0]
    )
    ours |= dict(prefill=[500.0], peak_mb=100.0, versions="a", prompt=[413])
    theirs = dict(
        first=[2e3], busy=[7e3], step=[30.0], total=[6e3], peak_mb=200.0, versions="b", others=0.5
    )
    page = asr_peers.page(site, {"crispasr": [common | theirs], "ours": [common | ours]})
    head, _, first, second = [line for line in page.splitlines() if line.startswith("|")]
    assert first.count("|") == second.count("|") == head.count("|")
    assert (
        first.startswith("| **ours**")
        and "| 3.00 (2.70-9.00) | 3.00 | 4.00 (4.00-4.00) | 0.100 |" in first
    )
    assert first.endswith("| 1.0 | 100 (80) | 3 |") and second.endswith("| 200 (80) | 7 |")
    assert "crispasr (50%, pass 1)" in page and "prompt of 413" in page
