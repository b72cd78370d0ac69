"""What levers store is what they say: blocks, scales, zero points, tables; weights come lazily."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch
from torch import Tensor, nn

from alm.errors import ExportFailed, UnknownName
from alm.ports import Port, Span
from exporters import embedding_table, graph, lazy, parity, precisions
from exporters.levers import _nbits, int8
from exporters.matmuls import CONTRIB, products
from wrappers import Wrapper
from wrappers.checkpoint.weights.hollow import attach, filled, hollow
from wrappers.checkpoint.weights.tensors import Weights

SCHEMES = {
    "4 bits": _nbits.Scheme(4, 32),
    "4 bits searched": _nbits.Scheme(4, 128, search=True),
    "4 bits symmetric": _nbits.Scheme(4, 32, symmetric=True),
    "8 bits": _nbits.Scheme(8, 128),
}


class Two(Wrapper):
    """Two Linears, the first in a ModuleList, and a table that nobody calls."""

    role = "decoder"

    def __init__(self, inner: int = 200) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(160, inner)])
        self.head = nn.Linear(inner, 96, bias=False)
        self.shift = nn.Parameter(torch.zeros(96))
        self.inputs = {"x": Port("float32", ("batch", "time", 160))}
        self.outputs = {"y": Port("float32", ("batch", "time", 96))}
        self.spans = {"time": Span(1, 6, 20)}

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return self.head(x) + self.shift


class Counting(Weights):
    """Weights that remember which of them were read."""

    def __init__(self) -> None:
        super().__init__("test")
        self.asked: list[str] = []

    def __getitem__(self, name: str) -> Tensor:
        self.asked.append(name)
        return super().__getitem__(name)


def attached() -> tuple[Two, Counting]:
    torch.manual_seed(0)
    weights = Counting()
    weights.add_tensors({n: t.detach().bfloat16() for n, t in Two().named_parameters()})
    return attach(hollow(Two), weights), weights


@pytest.mark.parametrize("scheme", SCHEMES.values(), ids=SCHEMES)
def test_blocks_are_within_half_a_step_or_the_search_found_less(scheme: _nbits.Scheme) -> None:
    matrix = torch.randn(48, 300)
    found = _nbits.quantize(matrix, scheme)
    back = _nbits.dequantize(found, scheme, 300)
    error = np.abs(back - matrix.numpy())
    steps = np.repeat(np.abs(found.scales), scheme.block, 1)[:, :300]
    if not scheme.search:
        assert (error <= 0.5001 * steps + (steps if scheme.symmetric else 0)).all()
    plain = _nbits.Scheme(scheme.bits, scheme.block, scheme.symmetric)
    kept = _nbits.dequantize(_nbits.quantize(matrix, plain), plain, 300)
    assert np.square(error).sum() <= np.square(kept - matrix.numpy()).sum() * 1.0001


def test_a_block_of_zeros_stays_zero() -> None:
    for scheme in SCHEMES.values():
        found = _nbits.quantize(torch.zeros(4, 130), scheme)
        assert (_nbits.dequantize(found, scheme, 130) == 0).all()


@pytest.mark.parametrize("scheme", SCHEMES.values(), ids=SCHEMES)
def test_the_engine_reads_the_blocks_as_they_are_meant(
    scheme: _nbits.Scheme, tmp_path: Path
) -> None:
    part, _ = attached()
    model = graph.trace(part, dynamic_batch=True)
    matrices: dict[str, np.ndarray] = {}
    for product in products(model.graph):
        rows, _ = product.sizes
        found = _nbits.quantize(product.read(), scheme)
        matrices[product.name] = _nbits.dequantize(found, scheme, rows)
        _nbits.put(product, scheme)
    model.opset_imports[CONTRIB] = 1
    lazy.drop_unused(model.graph)
    graph.save(model, tmp_path / "part.onnx", part.role)
    x = np.random.default_rng(0).standard_normal((1, 3, 160)).astype(np.float32)
    got = graph.opened(tmp_path / "part.onnx", part).run({"x": x})["y"]
    whole = filled(part)
    y = x @ matrices["layers.0.weight"].T + whole.layers[0].bias.numpy()  # pyright: ignore
    want = y @ matrices["head.weight"].T + whole.shift.numpy()
    # The engine rounds its inputs to 8 bits in blocks.
    assert np.abs(got - want).max() < 0.02 * np.abs(want).max()


def test_integer_products_do_not_overflow_on_any_processor(tmp_path: Path) -> None:
    """All inputs and weights at the ends of their 8 bits: what a sum in 16 bits would cut."""
    part, weights = attached()
    for name in weights.shapes:
        signs = torch.arange(weights[name].numel()).reshape(weights[name].shape) % 3 > 0
        weights.add_tensors({name: torch.where(signs, 1.0, -1.0).bfloat16()})
    part.role = "encoder"
    model = int8.Lever().rewrite(graph.trace(part, dynamic_batch=True), part.role)
    graph.save(model, tmp_path / "part.onnx", part.role)
    x = np.where(np.arange(480).reshape(1, 3, 160) % 5 > 0, 1, -1).astype(np.float32)
    got = graph.opened(tmp_path / "part.onnx", part).run({"x": x})["y"]
    want = filled(part)(torch.from_numpy(x)).detach().numpy()
    assert np.abs(got - want).max() < 0.01 * np.abs(want).max()


@pytest.mark.parametrize("kind", ["normal", "laplace", "ends", "zeros"])
@pytest.mark.parametrize("width", [1, 2, 7, 64, 331])
def test_two_neighbours_fit_into_16_bits_and_codes_are_as_near_as_they_can_be(
    width: int, kind: str
) -> None:
    random = np.random.default_rng(width)
    weights = {
        "normal": random.standard_normal((99, width)),
        "laplace": random.laplace(size=(99, width)),
        "ends": random.choice([-1.0, 0.5, 1.0], (99, width)),
        "zeros": np.zeros((99, width)),
    }[kind]
    codes, scales = int8.rounded(torch.from_numpy(weights))
    assert codes.shape == (width, 99) and codes.dtype == np.int8
    even, odd = codes[::2].astype(int), codes[1::2].astype(int)
    assert np.abs(codes.astype(int)).max() <= 127
    assert np.abs(even[: len(odd)] + odd).max(initial=0) <= 128
    # Half a step, and where a sum would be one too many, a whole one.
    assert (np.abs(codes.T * scales[:, None] - weights) <= 1.001 * scales[:, None]).all()
    # No scale is larger than it must be: an output ends at 127, or two neighbours at 127 or more.
    widest = np.maximum(np.abs(codes).max(0), np.abs(even[: len(odd)] + odd).max(0, initial=0))
    assert (widest >= (0 if kind == "zeros" else 126)).all()


def test_tracing_reads_no_matrix() -> None:
    part, weights = attached()
    graph.trace(part, dynamic_batch=True)
    assert not [name for name in weights.asked if name.endswith(("0.weight", "head.weight"))]


def test_a_hollow_part_computes_what_the_filled_one_does_and_keeps_nothing() -> None:
    part, weights = attached()
    x = torch.randn(2, 4, 160)
    before = part(x)
    assert all(p.is_meta for p in part.parameters())
    assert sorted(set(weights.asked)) == sorted(weights.shapes)
    assert torch.allclose(filled(part)(x), before, atol=1e-5)
    assert not any(p.is_meta for p in part.parameters())


def test_weights_of_a_hollow_part_that_are_missing_are_named() -> None:
    weights = Weights("some file")
    weights.add_tensors({"head.weight": torch.zeros(96, 200)})
    with pytest.raises(ValueError, match="some file.*missing: shift, layers.0.weight"):
        attach(hollow(Two), weights)


def test_precisions_are_joined_by_plus() -> None:
    both = precisions.pull("int4+kv8")
    assert both.table and both.table.dtype == "int8" and both.backends == {"onnxruntime"}
    assert precisions.pull("fp32").levers == () and precisions.pull("fp16").backends == set()
    with pytest.raises(UnknownName, match="unknown precision 'int5'; there is: fp32, auto, bf16"):
        precisions.pull("int4+int5")


@pytest.mark.parametrize("dtype, worst", [("float32", 0.0), ("float16", 2e-3), ("int8", 2e-2)])
def test_a_table_is_stored_as_it_says(dtype: str, worst: float, tmp_path: Path) -> None:
    rows = torch.randn(50, 24)
    rows[7] = 0
    stored, files, measured = embedding_table.write(rows, tmp_path / "embed.npy", dtype)
    found: Any = np.load(files[0]).astype(np.float32)
    if dtype == "int8":
        found = found * np.load(files[1])[:, None]
    assert stored == dtype and (found[7] == 0).all()
    error = np.abs(found - rows.numpy())
    assert error.max() <= worst * rows.abs().max()
    assert measured.worst_abs == pytest.approx(error.max())
    assert (measured.verdict(worst) == "exact") == (dtype == "float32")


def test_a_lever_that_would_leave_an_infinity_is_refused(tmp_path: Path) -> None:
    part = filled(attached()[0])
    part.layers[0].weight.data[0, 0] = 1e6  # pyright: ignore
    pulled = precisions.pull("fp16")
    model: ir.Model = pulled.rewrite(graph.trace(part, dynamic_batch=True), part.role)
    graph.save(model, tmp_path / "part.onnx", part.role)
    with pytest.raises(ExportFailed, match="not finite"):
        parity.measure(tmp_path / "part.onnx", parity.Truth(part, True), part.inputs)


def test_what_a_lever_costs_beyond_its_bound_is_beyond_it_and_no_worst_element_decides() -> None:
    want = np.random.default_rng(0).standard_normal((50, 40))
    odd = want.copy()
    odd[0, 0] += 1.0  # one element of 2000, off by as much as a usual value is large
    measured = parity.Parity()
    measured.take("y", odd, want)
    assert measured.worst_rel > 0.2 and measured.rms == pytest.approx(2000**-0.5, rel=0.1)
    assert measured.verdict(0.05) == "within bound" and measured.verdict(0.01) == "beyond bound"
    assert measured.verdict(0.0) == "beyond bound"
    same = parity.Parity()
    same.take("y", want * (1 + 1e-6), want)
    assert same.verdict(0.0) == same.verdict(0.05) == "exact"


def test_joined_levers_add_their_bounds_and_front_ends_stay_exact() -> None:
    assert precisions.pull("int4+kv8").bound("decoder") == pytest.approx(1.9)
    assert (
        precisions.pull("int4+kv8").bound("encoder") == precisions.pull("int8").bound("encoder") > 0
    )
    assert (
        precisions.pull("fp32").bound("decoder") == precisions.pull("int4").bound("frontend") == 0
    )
