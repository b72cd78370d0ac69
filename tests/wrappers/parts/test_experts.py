"""Experts in graphs: which operators they are, what levers make of them, what is counted."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx_ir as ir
import pytest
import torch
from torch import nn
from transformers import Qwen3MoeConfig

import wrappers
from alm.errors import BadCheckpoint
from alm.onnxfile import flops
from exporters import graph, lazy, parity, precisions, simplify
from exporters.levers import _nbits, int4, int8
from wrappers.checkpoint.weights.hollow import attach, hollow
from wrappers.checkpoint.weights.tensors import Weights
from wrappers.dialect import bound
from wrappers.layers.decoder import Decoder
from wrappers.layers.experts import Experts
from wrappers.llms import mixtral, qwen2_moe, qwen3_moe

# As wide as the longest block, so that nothing is padded.
WIDE: dict[str, Any] = dict(
    hidden_size=256,
    moe_intermediate_size=256,
    vocab_size=64,
    num_hidden_layers=1,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=64,
    num_experts=4,
    num_experts_per_tok=2,
)
LAYER = "model.layers.0.mlp"


def made(dialect: str, **more: Any) -> Decoder:
    with bound(dialect):
        return wrappers.randomised(Decoder(qwen3_moe.spec(Qwen3MoeConfig(**(WIDE | more)))))


def ops(model: ir.Model) -> list[str]:
    return [node.op_type for node in model.graph]


def test_experts_are_one_node_in_ort_and_two_plain_products_elsewhere() -> None:
    for dialect in ("ort", "standard", "decomposed"):
        model = graph.trace(made(dialect), dynamic_batch=True)
        experts = {n: v for n, v in model.graph.initializers.items() if ".experts." in n}
        assert len(experts) == 2  # each once, and nothing reshapes them while the graph runs
        if dialect == "ort":
            assert ops(model).count("MoE") == 1
            assert [lazy.shape_of(v) for v in experts.values()] == [(4, 512, 256), (4, 256, 256)]
        else:
            assert {*ops(model)}.isdisjoint({"MoE", "If", "Loop", "Scan", "NonZero"})
            assert [lazy.shape_of(v) for v in experts.values()] == [(256, 2048), (1024, 256)]


def test_another_activation_is_exact_in_plain_products() -> None:
    part = made("ort", hidden_act="gelu")
    assert "MoE" not in ops(graph.trace(part, dynamic_batch=True)) and part.facts == {}


def quantized(part: Decoder, scheme: _nbits.Scheme) -> None:
    """Round what a lever rounds, in the module itself."""

    def rounded(matrix: torch.Tensor) -> torch.Tensor:
        stored = _nbits.quantize(matrix, scheme)
        return torch.from_numpy(_nbits.dequantize(stored, scheme, matrix.shape[1]).copy())

    for name, module in part.named_modules():
        if isinstance(module, Experts):
            for weight in (module.gate_up_proj, module.down_proj):
                weight.data = rounded(weight.flatten(0, 1)).view_as(weight)
        elif isinstance(module, nn.Linear) and not name.endswith("mlp.gate"):
            module.weight.data = rounded(module.weight)


@pytest.mark.parametrize("precision, scheme", [("int4", int4.SCHEME), ("int8", int8.SCHEME)])
def test_experts_of_few_bits_compute_what_their_dequantized_weights_do(
    precision: str, scheme: _nbits.Scheme, tmp_path: Path
) -> None:
    part = made("ort")
    before = graph.trace(part, dynamic_batch=True)
    size = graph.weight_bytes(before)
    model = precisions.pull(precision).rewrite(before, "decoder")
    assert ops(model).count("QMoE") == 1 and "MoE" not in ops(model)
    share = scheme.bits / 32 + 0.02
    assert graph.weight_bytes(model) < share * size
    graph.save(model, tmp_path / "part.onnx", "decoder")
    quantized(part, scheme)
    off = parity.measure(tmp_path / "part.onnx", parity.Truth(part, True), part.inputs)
    assert off.rms < 0.03  # inputs are rounded to 8 bits on the way, as in MatMulNBits


@pytest.mark.parametrize("precision", ["int4", "int4mixed", "int8", "fp16", "bf16", "int4dq"])
@pytest.mark.parametrize("dialect", ["ort", "standard"])
def test_no_lever_touches_a_router(precision: str, dialect: str) -> None:
    part, pulled = made(dialect), precisions.pull(precision)
    pulled.prepare(part, lambda: torch.randn(4, 256))
    model = pulled.rewrite(graph.trace(part, dynamic_batch=True), "decoder")
    router = model.graph.initializers[f"{LAYER}.gate.weight"]
    assert router.dtype == ir.DataType.FLOAT and len(router.uses()) == 1
    assert {n for n, v in model.graph.initializers.items() if v.dtype == ir.DataType.FLOAT
            and ".experts." in n and "scales" not in n} == set()  # fmt: skip


def test_widths_that_no_block_divides_stay_in_float32_and_the_size_shows_it() -> None:
    part = made("ort", moe_intermediate_size=20)
    before = graph.trace(part, dynamic_batch=True)
    model = precisions.pull("int4").rewrite(before.clone(), "decoder")
    assert ops(model).count("MoE") == 1
    experts = sum(w.numel() for n, w in part.named_parameters() if ".experts." in n)
    assert graph.weight_bytes(model) > 4 * experts


def test_what_a_token_reads_is_counted() -> None:
    part = made("ort")
    weights = sum(w.numel() for w in part.parameters())
    assert part.facts == {"active_weights": weights - 2 * 3 * 256 * 256}
    assert made("standard").facts == {}
    precisions.pull("int8dq").prepare(part, lambda: torch.randn(4, 256))
    assert part.facts == {}  # written as products, of which every weight is read


@pytest.mark.parametrize("precision", ["fp32", "int4"])
def test_operations_of_the_experts_that_a_token_passes_are_counted(
    precision: str, tmp_path: Path
) -> None:
    model = graph.trace(made("ort"), dynamic_batch=True)
    graph.save(precisions.pull(precision).rewrite(model, "decoder"), tmp_path / "d.onnx", "decoder")
    sizes = dict(batch=1, seq=7, past=0, capacity=7, wanted=1)
    none = graph.trace(made("ort", num_experts_per_tok=1), dynamic_batch=True)
    graph.save(precisions.pull(precision).rewrite(none, "decoder"), tmp_path / "n.onnx", "decoder")
    more = flops.operations(tmp_path / "d.onnx", sizes)[0]
    # Of the last layer, which is the only one, a prompt needs its last position alone.
    assert more - flops.operations(tmp_path / "n.onnx", sizes)[0] == 2 * 1 * 3 * 256 * 256


def test_a_hollow_mixture_runs_layer_by_layer_as_a_filled_one() -> None:
    part = made("decomposed")
    weights = Weights("here")
    weights.add_tensors(dict(part.state_dict()))
    with bound("decomposed"):
        empty = attach(hollow(lambda: Decoder(part.spec)), weights)
    cache = part.fresh(2, 5)
    fed = (torch.randn(2, 5, 256), torch.zeros(2, dtype=torch.int64), torch.tensor([5, 3]), *cache)
    with torch.no_grad():
        assert torch.equal(empty(*fed)[0], part(*fed)[0])


@pytest.mark.parametrize(
    "llm, said, sentence",
    [
        (qwen3_moe, dict(num_experts_per_tok=9), "num_experts_per_tok 9 are not 1 to 5"),
        (mixtral, dict(num_experts_per_tok=5), "num_experts_per_tok 5 are not 1 to 4"),
        (qwen2_moe, dict(mlp_only_layers=[0, 7]), "mlp_only_layers name 7, and layers are 0 to 1"),
        (qwen3_moe, dict(decoder_sparse_step=0), "decoder_sparse_step 0; it must be a whole"),
        (qwen3_moe, dict(moe_intermediate_size=0), "moe_intermediate_size 0; it must be"),
        (mixtral, dict(hidden_act="swish2"), "unknown activation 'swish2'"),
    ],
)
def test_a_config_that_no_mixture_has_is_refused_by_name(
    llm: Any, said: dict[str, Any], sentence: str
) -> None:
    config = llm.tiny().config
    vars(config).update(said)
    with pytest.raises(BadCheckpoint, match=sentence):
        llm.spec(config)


def test_noise_of_a_router_is_of_training_alone() -> None:
    config = mixtral.tiny().config
    config.router_jitter_noise = 0.5
    assert replace(mixtral.spec(config), config=None) == replace(mixtral.tiny(), config=None)


def test_small_experts_that_onnxsim_took_in_are_rounded_too(tmp_path: Path) -> None:
    with bound("ort"):
        part = wrappers.randomised(Decoder(qwen3_moe.tiny()))
    leaner = simplify.simplify(graph.trace(part, dynamic_batch=True))
    model = precisions.pull("int4").rewrite(leaner, "decoder")
    assert ops(model).count("QMoE") == 2
    graph.save(model, tmp_path / "part.onnx", "decoder")
    off = parity.measure(tmp_path / "part.onnx", parity.Truth(part, True), part.inputs)
    assert 0 < off.rms < int4.BOUND
