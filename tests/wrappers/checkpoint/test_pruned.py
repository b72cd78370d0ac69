"""Pruned LLMs: what pruners save is computed as it was pruned, or refused in a sentence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from alm.errors import BadCheckpoint
from tests.wrappers.checkpoint.pruned_llms import WHOLE, Pruned
from tests.wrappers.parts.test_decoders import run
from wrappers.checkpoint import llm_files, pruned
from wrappers.checkpoint.weights.tensors import Weights, open_folder
from wrappers.dialect import bound
from wrappers.layers.decoder import Decoder
from wrappers.layers.spec import Spec

UNEVEN = [WHOLE, (3, 1, 40), (2, 2, 72), WHOLE]
CASES = {
    "first and last layer whole, as LLM-Pruner leaves them": Pruned("Llama", UNEVEN),
    "tied, biases on queries": Pruned("Qwen2", UNEVEN, dict(tie_word_embeddings=True)),
    "heads of another width": Pruned("Llama", UNEVEN, dict(head_dim=20)),
    "head_dim unsaid and right": Pruned("Llama", UNEVEN, said=dict(head_dim=None)),
    "normed heads": Pruned("Qwen3", UNEVEN, dict(head_dim=12)),
    "norms over the whole width": Pruned("Olmo2", UNEVEN),
    "two ropes and windows": Pruned(
        "Gemma3Text", UNEVEN, dict(head_dim=16, sliding_window=5, sliding_window_pattern=2)
    ),
    "biases behind, as FLAP adds them": Pruned(
        "Mistral", UNEVEN, dict(sliding_window=5, head_dim=16), biases=True
    ),
    "all layers alike, the config as it was": Pruned("Llama", [(2, 1, 56)] * 4),
    "all alike, heads no longer go into hidden_size": Pruned(
        "Llama", [(3, 1, 96)] * 4, said=dict(num_attention_heads=3, num_key_value_heads=1)
    ),
    "the same, head_dim unsaid": Pruned(
        "Qwen2",
        [(3, 1, 56)] * 4,
        said=dict(num_attention_heads=3, num_key_value_heads=1, head_dim=None),
    ),
    "all alike, head_dim unsaid and not what transformers takes": Pruned(
        "Llama",
        [(2, 1, 96)] * 4,
        said=dict(num_attention_heads=2, num_key_value_heads=1, head_dim=None),
    ),
    "no attention, no MLP, as RTP-LLM says them": Pruned(
        "Llama",
        [(3, 1, 40), (0, 0, 96), (2, 2, 0), (0, 0, 0)],
        said=dict(layer_head_num=[3, 0, 2, 0], layer_inter_size=[40, 96, 0, 0], layer_num=4),
    ),
    "dropped, as LLM-Drop says it": Pruned(
        "Mistral",
        [WHOLE, (0, 0, 96), (4, 2, 0), WHOLE],
        dict(sliding_window=None),
        said=dict(drop_attn_list=[1], drop_mlp_list=[False, False, True, False]),
    ),
    "dropped, their weights still there": Pruned(
        "Qwen2",
        [WHOLE, (0, 0, 96), (4, 2, 0), (0, 0, 0)],
        said=dict(drop_attn_list=[3, 1], drop_mlp_list=[2, 3]),
        all_saved=True,
    ),
    "dropped between norms on both sides": Pruned(
        "Gemma2",
        [WHOLE, (0, 0, 96), (4, 2, 0), WHOLE],
        dict(head_dim=16, sliding_window=6),
        said=dict(drop_attn_list=[1], drop_mlp_list=[2]),
        all_saved=True,
    ),
}


def opened(folder: Path) -> tuple[Spec, Weights]:
    """The folder as a family opens it."""
    named = llm_files.named(open_folder(folder))
    spec = llm_files.read_spec(folder, lambda: named)
    return spec, llm_files.with_head(spec, pruned.left(spec, named))


@pytest.mark.parametrize("case", CASES)
@torch.no_grad()
def test_a_pruned_llm_is_computed_as_transformers_does(case: str, tmp_path: Path) -> None:
    truth = CASES[case].make(tmp_path)
    spec, weights = opened(tmp_path)
    assert llm_files.faults(spec, weights) == []
    sizes = [(at.heads, at.kv_heads, at.intermediate) for at in map(spec.at, range(4))]
    assert sizes == [tuple(layer) for layer in CASES[case].layers]
    embeds, chunks = torch.randn(2, 14, spec.hidden), [9, 3, 1, 1]
    ends = [sum(chunks[: i + 1]) - 1 for i in range(len(chunks))]
    wanted = truth(inputs_embeds=embeds, use_cache=False).logits[:, ends]
    for dialect in ("standard", "decomposed", "ort"):
        with bound(dialect):
            decoder = Decoder(spec).eval()
        decoder.load_state_dict(weights.take(decoder.state_dict()))
        error = (run(decoder, embeds, chunks) - wanted).abs().max()
        assert error < 2e-5 * wanted.abs().max()


def test_what_no_config_says_is_told(tmp_path: Path) -> None:
    CASES["biases behind, as FLAP adds them"].make(tmp_path)
    spec, _ = opened(tmp_path)
    assert spec.found == (
        f"the LLM in {tmp_path / 'model.safetensors'} is pruned: its weights have 2 to 4 heads, "
        "1 to 2 of keys and values, and MLPs 40 to 96 wide a layer, and its config says 4, 2 and "
        "96; o_proj and down_proj have biases",
    )


def test_an_llm_that_is_not_pruned_stays_as_its_config_has_it(tmp_path: Path) -> None:
    Pruned("Llama", [WHOLE] * 4, said=dict(head_dim=None)).make(tmp_path)
    spec, _ = opened(tmp_path)
    assert spec.found == () == spec.uneven and spec.head_dim == 16


def test_layers_that_were_taken_out_are_fewer_layers(tmp_path: Path) -> None:
    kept = dict(num_hidden_layers=3, no_rope_layers=[1, 0, 1])
    truth = Pruned("SmolLM3", [WHOLE] * 3, kept).make(tmp_path)
    spec, weights = opened(tmp_path)
    assert spec.layers == 3 and spec.rotated == (True, False, True)
    decoder = Decoder(spec).eval()
    decoder.load_state_dict(weights.take(decoder.state_dict()))
    embeds = torch.randn(1, 6, spec.hidden)
    with torch.no_grad():
        wanted = truth(inputs_embeds=embeds, use_cache=False).logits[:, [4, 5]]
        assert (run(decoder, embeds, [5, 1]) - wanted).abs().max() < 1e-4


# --- what cannot be known is refused

State = dict[str, Tensor]


def cut(state: State, name: str, rows: int) -> None:
    key = f"model.layers.{name}.weight"
    state[key] = state[key][:rows].contiguous()


def narrow(state: State) -> None:
    cut(state, "1.self_attn.v_proj", 16)


def odd_rows(state: State) -> None:
    cut(state, "1.self_attn.q_proj", 40)
    key = "model.layers.1.self_attn.o_proj.weight"
    state[key] = state[key][:, :40].contiguous()


def half_an_mlp(state: State) -> None:
    cut(state, "2.mlp.gate_proj", 50)


def gaps(state: State) -> None:
    for name in [n for n in state if ".layers.3." in n]:
        state[name.replace(".3.", ".5.")] = state.pop(name)


def far_away(state: State) -> None:
    state["model.layers.987654321987.mlp.up_proj.weight"] = torch.zeros(96, 64)


def stray_bias(state: State) -> None:
    state["model.layers.0.self_attn.o_proj.bias"] = torch.zeros(64)


def sliced(state: State) -> None:
    state["model.layers.0.mlp_shortcut_Q"] = torch.eye(64)


def nothing(_: State) -> None:
    return


FOUR = [WHOLE] * 4
REFUSED: dict[str, tuple[Pruned, Any, str]] = {
    "groups that are none": (
        Pruned("Llama", [WHOLE, (3, 2, 40), WHOLE, WHOLE]),
        nothing,
        "layer 1 has 3 heads of queries and 2 of keys, and the first must be a multiple",
    ),
    "values of other heads than keys": (
        Pruned("Llama", FOUR),
        narrow,
        "misshapen: ",
    ),
    "rows that are no whole heads": (Pruned("Llama", FOUR), odd_rows, "misshapen: "),
    "an MLP that does not agree": (Pruned("Llama", FOUR), half_an_mlp, "misshapen: "),
    "heads of two widths explain it": (
        Pruned("Llama", [(2, 1, 96)] * 4, said=dict(head_dim=None)),
        nothing,
        "32 rows of queries in every layer, which are 4 heads of 8 or 2 of 16; say head_dim",
    ),
    "numbers with gaps": (
        Pruned("Llama", FOUR),
        gaps,
        "layers are numbered up to 5 without 3, 4; where layers were taken out",
    ),
    "a number of any size": (
        Pruned("Llama", FOUR),
        far_away,
        "up to 987654321987 without 4, 5, 6, 7, 8, 9, 10, 11 ...; where",
    ),
    "sliced by SliceGPT": (Pruned("Llama", FOUR), sliced, "was sliced by SliceGPT, whose layers"),
    "blocks of a Nemotron-NAS": (
        Pruned("Llama", FOUR, said=dict(block_configs=[{"ffn": {"no_op": True}}] * 4)),
        nothing,
        "block_configs, as a Nemotron-NAS does; that is not read here",
    ),
    "a bias that nothing explains": (
        Pruned("Llama", FOUR),
        stray_bias,
        "holds what no part of the LLM takes: model.layers.0.self_attn.o_proj.bias",
    ),
    "a list of other heads": (
        Pruned("Llama", UNEVEN, said=dict(layer_head_num=[4, 3, 3, 4])),
        nothing,
        "layer_head_num [4, 3, 3, 4], and ",
    ),
    "a list of other MLPs": (
        Pruned("Llama", UNEVEN, said=dict(layer_inter_size=[96, 40, 72, 72])),
        nothing,
        "layer_inter_size [96, 40, 72, 72], and ",
    ),
    "a list that is too short": (
        Pruned("Llama", UNEVEN, said=dict(layer_head_num=[4, 3])),
        nothing,
        "layer_head_num [4, 3]; that must be a whole number for each of 4 layers",
    ),
    "a depth of its own": (
        Pruned("Llama", UNEVEN, said=dict(layer_num=5)),
        nothing,
        "layer_num 5 and num_hidden_layers 4",
    ),
    "layers dropped that are not there": (
        Pruned("Llama", FOUR, said=dict(drop_attn_list=[7])),
        nothing,
        "drop_attn_list [7]; that must be numbers of its 4 layers, or true and false for each",
    ),
    "all attention dropped": (
        Pruned("Llama", FOUR, said=dict(drop_attn_list=[0, 1, 2, 3])),
        nothing,
        "no layer has attention",
    ),
    "dropped from an LLM of its own layers": (
        Pruned("Granite", FOUR, said=dict(drop_mlp_list=[1])),
        nothing,
        "layers have no attention or no MLP, which is not done for granite",
    ),
    "kinds of layers that are too many": (
        Pruned("Qwen2", FOUR, said=dict(layer_types=["full_attention"] * 6)),
        nothing,
        "num_hidden_layers",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_known_is_refused(case: str, tmp_path: Path) -> None:
    model, change, sentence = REFUSED[case]
    model.make(tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    change(state)
    save_file(state, tmp_path / "model.safetensors")
    try:
        said = "; ".join(llm_files.faults(*opened(tmp_path)))
    except BadCheckpoint as error:
        said = str(error)
        assert "config.json" in said
    assert sentence in said


def test_a_model_that_was_pickled_whole_is_refused_with_the_way_out(tmp_path: Path) -> None:
    model = Pruned("Llama", UNEVEN).make(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    torch.save({"model": model, "tokenizer": None}, tmp_path / "pytorch_model.bin")
    with pytest.raises(BadCheckpoint) as error:
        opened(tmp_path)
    assert "a whole model was pickled" in str(error.value)
    assert "save_pretrained" in str(error.value)
