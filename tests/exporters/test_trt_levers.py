"""Graphs for TensorRT: what is stored in few bits, and that they compute the same before it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from alm.artifacts import manifest
from alm.artifacts.manifest import Manifest, Part
from alm.golden import vectors
from alm.ports import Port, Span
from alm.tensorrt import api, build
from alm.tensorrt.api import Limits
from alm.tensorrt.profiles import STEP
from exporters import feeds, graph, precisions
from exporters.levers import _dequantized, _nbits
from tests import ROOT
from tests.conftest import run_export
from tests.products import some
from tests.runtime.tensorrt.built import RTX, quiet
from wrappers import Wrapper, randomised

DEMO = ROOT / "demo" / "checkpoint" / "config.yaml"
PRECISIONS = ("fp16", "int8dq", "int4dq")
COSINE, OWN = 0.999, 1e-3


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo model in the dialect `standard`, float32, any batch."""
    return exported(tmp_path_factory.mktemp("plain"), "fp32")


@pytest.fixture(scope="module", params=some(PRECISIONS, "int8dq", "int4dq"))
def narrow(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same in fewer bits."""
    return exported(tmp_path_factory.mktemp("narrow"), request.param)


def exported(folder: Path, precision: str, *words: str, dialect: str = "standard") -> Path:
    out = folder / precision
    # Simplified graphs are the same operators; to find that out would take twice the time.
    said = ("--dialect", dialect, "--precision", precision, "--dynamic-batch", "--no-simplify")
    run_export("--model", DEMO, "--out", out, *said, *words)
    return out


def cases(part: Part) -> Iterator[feeds.Feeds]:
    """Feeds in the dtypes of the graph, batches 1 to 3, each axis short, usual and long."""
    for seed, sizes in enumerate(feeds.cases(part.inputs, part.spans, dynamic_batch=True)):
        yield feeds.make(part.inputs, part.spans, sizes, seed)


def session(model: onnx.ModelProto | Path) -> onnxruntime.InferenceSession:
    """Operators as they are written: fused, ONNX Runtime rounds what meets 4 bits to 8."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    source: Any = model.SerializeToString() if isinstance(model, onnx.ModelProto) else model
    return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])


def answers(running: onnxruntime.InferenceSession, part: Part, fed: feeds.Feeds) -> dict[str, Any]:
    """What comes out, without what lies in slots of the cache that hold nothing."""
    made = running.run(None, fed)
    outputs = zip(part.outputs.items(), made, strict=True)
    return {name: vectors.filled(np.asarray(y), port, fed) for (name, port), y in outputs}


def graphs(said: Manifest) -> list[Part]:
    return [part for part in said.parts if part.role != "table"]


def weights(model: onnx.ModelProto) -> dict[str, TensorProto]:
    return {tensor.name: tensor for tensor in model.graph.initializer}


def dequantizers(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    return [node for node in model.graph.node if node.op_type == "DequantizeLinear"]


# --- what is stored


@pytest.mark.parametrize("bits, block, top", [(4, 32, 7), (8, 96, 127)])
def test_codes_are_around_zero_and_scales_are_positive_float16(
    bits: int, block: int, top: int
) -> None:
    scheme = _nbits.Scheme(bits, block, symmetric=True, positive=True)
    matrix = torch.randn(48, 96)
    matrix[5, :32] = 0
    codes, scales = _nbits.signed(matrix, scheme)
    assert codes.dtype == np.int8 and scales.dtype == np.float16 and (scales > 0).all()
    assert codes.shape == (96, 48) and scales.shape == (96 // block, 48)
    assert -top - 1 <= codes.min() and codes.max() <= top
    steps = np.repeat(scales.astype(np.float32), block, 0)
    error = np.abs(codes * steps - matrix.numpy().T)
    assert (error <= 0.51 * steps).all() and (codes[:32, 5] == 0).all()


def test_a_search_for_the_clipping_never_costs_more() -> None:
    matrix = torch.randn(64, 256) ** 3
    losses = []
    for search in (False, True):
        scheme = _nbits.Scheme(4, 128, symmetric=True, search=search, positive=True)
        codes, scales = _nbits.signed(matrix, scheme)
        losses.append(np.square(codes * np.repeat(scales, 128, 0) - matrix.numpy().T).sum())
    assert losses[1] < 0.95 * losses[0]


def test_what_tensorrt_wants_holds_for_every_node(narrow: Path) -> None:
    model = onnx.load(narrow / "decoder.onnx")
    nodes, tensors = dequantizers(model), weights(model)
    onnx.checker.check_model(model)
    assert len(nodes) == (0 if narrow.name == "fp16" else 3 * 7 + 1)
    assert all(len(node.input) == 2 for node in nodes)  # no zero point
    assert len({name for node in nodes for name in node.input}) == 2 * len(nodes)
    for node in nodes:
        codes, scales = (tensors[name] for name in node.input)
        said = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        assert (numpy_helper.to_array(scales) > 0).all()
        assert scales.data_type == TensorProto.FLOAT16
        if "lm_head" in node.input[0] or narrow.name == "int8dq":
            assert codes.data_type == TensorProto.INT8 and said == {"axis": 1}
            continue
        assert codes.data_type == TensorProto.INT4 and said["axis"] == 0
        rows, columns = codes.dims
        assert list(scales.dims) == [rows // said["block_size"], columns]


def test_blocks_are_of_128_where_that_divides_the_inputs() -> None:
    class Product:
        def __init__(self, *sizes: int) -> None:
            self.sizes = sizes

    def scheme(*sizes: int) -> tuple[int, int]:
        found = _dequantized.scheme_of(Product(*sizes), 4)  # pyright: ignore
        return found.bits, found.block

    assert scheme(2048, 64) == (4, 128) and scheme(176, 64) == (4, 16)
    assert scheme(100, 64) == (8, 100) and scheme(128, 63) == (8, 128)


def test_few_bits_stay_few_in_the_file(plain: Path, narrow: Path) -> None:
    def share(name: str) -> float:
        sizes = [manifest.load(folder).part(name) for folder in (narrow, plain)]
        return sizes[0].bytes / sizes[1].bytes  # pyright: ignore[reportOptionalMemberAccess]

    most = {"fp16": 0.52, "int8dq": 0.28, "int4dq": 0.22}[narrow.name]
    assert share("decoder") < most
    assert share("whisper") < {"fp16": 0.6}.get(narrow.name, 0.42)
    assert share("mel") == 1


def test_a_decoder_of_an_older_dialect_is_written_in_an_opset_that_knows_int4(
    tmp_path: Path,
) -> None:
    out = exported(tmp_path, "int4dq", "--part", "decoder", dialect="decomposed")
    said = manifest.load(out).parts[0]
    model = onnx.load(out / "decoder.onnx")
    assert said.opset == 21 and model.opset_import[0].version == 21
    assert weights(model)[dequantizers(model)[0].input[0]].data_type == TensorProto.INT4


def test_the_precisions_run_anywhere() -> None:
    assert all(not precisions.pull(name).backends for name in PRECISIONS)


# --- what is computed


def test_attention_carries_no_attribute_since_onnx_runtime_refuses_it(plain: Path) -> None:
    model = onnx.load(plain / "decoder.onnx")
    nodes = [node for node in model.graph.node if node.op_type == "Attention"]
    assert nodes and all("TRT_decomposable" not in str(node.attribute) for node in nodes)
    nodes[0].attribute.append(helper.make_attribute("TRT_decomposable", 1))
    with pytest.raises(Exception, match="Unrecognized attribute: TRT_decomposable"):
        session(model)


def test_every_part_says_nearly_what_it_says_in_float32(plain: Path, narrow: Path) -> None:
    least = COSINE if narrow.name == "fp16" else 0.99
    if narrow.name == "int4dq":
        least = 0.93
    for part in graphs(manifest.load(narrow)):
        ours = session(narrow / part.files[0].name)
        theirs = session(plain / part.files[0].name)
        before = manifest.load(plain).part(part.name)
        assert before is not None
        for fed in cases(part):
            same = {n: array.astype(before.inputs[n].dtype) for n, array in fed.items()}
            pairs = zip(
                answers(ours, part, fed).items(), answers(theirs, part, same).values(), strict=True
            )
            for (name, got), want in pairs:
                assert cosine(got, want) >= least, f"{part.name} {name}"


def test_int4_and_int8_compute_what_their_own_dequantized_weights_do(narrow: Path) -> None:
    for part in graphs(manifest.load(narrow)):
        model = onnx.load(narrow / part.files[0].name)
        ours, theirs = session(model), session(widened(model))
        for fed in cases(part):
            got, want = answers(ours, part, fed), answers(theirs, part, fed)
            for name in got:
                far = np.abs(got[name].astype("f") - want[name].astype("f")).max(initial=0)
                assert far <= OWN * max(np.abs(want[name]).max(initial=0), 1e-6), name


def widened(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same with float16 weights, dequantized here as ONNX defines it."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    tensors = weights(copy)
    for node in dequantizers(copy):
        wide = dequantized(node, tensors)
        copy.graph.initializer.append(numpy_helper.from_array(wide, node.output[0]))
        copy.graph.node.remove(node)
        for name in node.input:
            copy.graph.initializer.remove(tensors[name])
    return copy


def dequantized(node: onnx.NodeProto, tensors: Mapping[str, TensorProto]) -> np.ndarray:
    codes, scales = (numpy_helper.to_array(tensors[name]) for name in node.input)
    assert codes.dtype in (np.int8, ml_dtypes.int4)
    blocks = next((a.i for a in node.attribute if a.name == "block_size"), 0)
    steps = np.repeat(scales, blocks, 0) if blocks else scales[None]
    return (codes.astype(np.float32) * steps.astype(np.float32)).astype(np.float16)


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    a, b = a.astype(np.float64).ravel(), b.astype(np.float64).ravel()
    norms = np.linalg.norm(a) * np.linalg.norm(b)
    return float(a @ b / norms) if norms else 1.0


# --- what TensorRT-RTX builds of it, without a GPU


class Wide(Wrapper):
    """One large product."""

    role = "decoder"
    opset = 21

    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Linear(2048, 2048, bias=False)
        self.inputs = {"x": Port("float32", (1, "time", 2048))}
        self.outputs = {"y": Port("float32", (1, "time", 2048))}
        self.spans = {"time": Span(1, 6, 20)}

    def forward(self, x: Tensor) -> Tensor:
        return self.up(x)


@pytest.fixture(scope="module")
def rtx() -> None:
    pytest.importorskip("tensorrt_rtx", reason="it is optional: pip install tensorrt-rtx")


@pytest.mark.tensorrt
@pytest.mark.parametrize(
    "precision, bits", [("fp32", 32), ("fp16", 16), ("int8dq", 8), ("int4dq", 4)]
)
def test_an_engine_holds_as_many_bits_a_weight_as_the_lever_says(
    rtx: None, precision: str, bits: int, tmp_path: Path
) -> None:
    part = randomised(Wide())
    model = graph.trace(part, dynamic_batch=False)
    graph.save(precisions.pull(precision).rewrite(model, part.role), tmp_path / "w.onnx", part.role)
    spans = ((1, 6, 20), (1, 1, STEP))  # a prompt, and a step for which no weight is kept again
    profiles: Any = [{"x": tuple((1, n, 2048) for n in span)} for span in spans]
    content = (tmp_path / "w.onnx").read_bytes()
    made = api.build(RTX, content, tmp_path / "w.onnx", profiles, Limits(), b"", quiet)
    weights_bytes = 2048 * 2048 * bits // 8
    assert weights_bytes < len(made.plan) < weights_bytes * 1.1 + 2**19


@pytest.mark.tensorrt
def test_a_decoder_whose_cache_grows_is_built_too(rtx: None, tmp_path: Path) -> None:
    out = exported(tmp_path, "fp16", "--part", "decoder", dialect="decomposed")
    (engine,) = build.build(out, build.Settings(RTX), quiet, quiet)
    past = engine.profiles[1]["past_key_values.0.key"]
    assert not engine.fixed and [shape[2] for shape in past] == [0, 256, 512]


@pytest.mark.tensorrt
def test_every_part_is_built(rtx: None, plain: Path, narrow: Path) -> None:
    for folder in (plain, narrow):
        out = build.build(folder, build.Settings(RTX), quiet, quiet)
        assert [e.part for e in out] == [p.name for p in graphs(manifest.load(folder))]
    ours, theirs = (manifest.load(f).engine("decoder", RTX) for f in (narrow, plain))
    assert ours is not None and theirs is not None
    assert ours.file.bytes < theirs.file.bytes and len(ours.profiles) == 2
