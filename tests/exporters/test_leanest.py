"""The step from a traced graph to the one that ships: no lie and no damage gets through."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch
from torch import Tensor, nn
from transformers import LlamaConfig

import wrappers
from alm import registry
from alm.errors import ExportFailed
from alm.facts import Facts
from alm.ports import Port, Span
from alm.precision import PLAIN, PLAINEST
from exporters import feeds, graph, levers, parity, part
from exporters.bundle import Bundle
from tests.products import pairs, some
from wrappers import Checkpoint, Wrapper
from wrappers.dialect import bound
from wrappers.encoders import hubert
from wrappers.layers.decoder import Decoder
from wrappers.layers.experts import Experts
from wrappers.llms import llama

LEVERS = registry.names(levers)
PARTS = [name for role in ("frontend", "encoder", "bridge") for name in wrappers.with_role(role)]
EXACT = ["kmeans"]  # no lever is pulled on them
OTHERS = ["wavlm", "llama", "qwen2_moe"]


class Small(Wrapper):
    """x W + b, and then the same again."""

    role = "encoder"

    def __init__(self, lie: float = 0.0) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.one, self.other, self.lie = nn.Linear(8, 8), nn.Linear(8, 8), lie
        self.inputs = {"x": Port("float32", ("batch", "time", 8))}
        self.outputs = {"y": Port("float32", ("batch", "time", 8))}
        self.spans = {"time": Span(1, 6, 20)}

    def forward(self, x: Tensor) -> Tensor:
        y = self.other(self.one(x))
        return y + self.lie if torch.compiler.is_exporting() else y


def checkpoint(of: Wrapper) -> Checkpoint:
    return Checkpoint(
        family="test",
        parts={"small": lambda: of},
        embedding=lambda: torch.zeros(2, 2),
        tokenizer_json="{}",
        facts=Facts(),
    )


def exported(of: Wrapper, folder: Path, simplifier: object, said: list[str]) -> part.Exported:
    settings = part.Settings("standard", {"small": "fp32"}, True, simplifier)  # pyright: ignore
    with Bundle(folder / "out") as bundle:
        return part.export("small", checkpoint(of), settings, bundle, said.append)


def damaged(model: ir.Model) -> ir.Model:
    """A graph that lost a weight and looks leaner, as some optimizers leave them."""
    leaner = model.clone()
    weight = max(leaner.graph.initializers.values(), key=lambda v: v.const_value.nbytes)  # pyright: ignore
    weight.const_value = ir.tensor(np.zeros(list(weight.shape), np.float32))  # pyright: ignore
    node = next(n for n in leaner.graph if n.op_type == "Add")
    node.outputs[0].replace_all_uses_with(node.inputs[0] or node.inputs[1])  # pyright: ignore
    leaner.graph.remove(node, safe=True)
    return leaner


def broken(model: ir.Model) -> ir.Model:
    raise RuntimeError("could not simplify\nand a long story")


def test_a_graph_that_simplifying_damaged_is_kept_as_it_was_traced(tmp_path: Path) -> None:
    said: list[str] = []
    made = exported(Small(), tmp_path, damaged, said).part
    assert made.simplified.startswith("no: onnxsim made it less exact")
    assert made.measured["parity"]["worst_abs"] < 1e-5
    assert any(step.startswith("kept unsimplified") for step in said)


def test_a_simplifier_that_fails_costs_nothing_but_its_word(tmp_path: Path) -> None:
    said: list[str] = []
    made = exported(Small(), tmp_path, broken, said).part
    assert made.simplified == "no: RuntimeError: could not simplify"
    assert "kept unsimplified: RuntimeError: could not simplify" in said


def test_a_float32_part_that_is_off_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ExportFailed, match="part small is off by 2.0e-03.*within 0.001"):
        exported(Small(lie=2e-3), tmp_path, None, [])
    assert list(tmp_path.iterdir()) == []


Trace = Callable[[str, Wrapper], ir.Model]


@pytest.fixture(scope="module")
def trace() -> Trace:
    """A part's graph by the part's name, traced once for all levers that prepare it alike."""
    traces: dict[Any, ir.Model] = {}

    def traced(name: str, of: Wrapper) -> ir.Model:
        scales = {n: scale.numpy().tobytes() for n, scale in of.state_scales.items()}
        ports = {n: (port.dtype, port.axes) for n, port in of.inputs.items()}
        plain = [module.plain for module in of.modules() if isinstance(module, Experts)]
        key = (name, of.opset, repr(ports), repr(scales), repr(plain))
        if key not in traces:
            traces[key] = graph.trace(of, dynamic_batch=True)
        return traces[key].clone()

    return traced


def test_a_part_beyond_its_levers_bound_stops_the_export_and_leaves_nothing(
    tmp_path: Path,
) -> None:
    lies = Small(lie=0.2)
    settings = part.Settings("standard", {"small": "fp16"}, True, None)
    words = r"part small is off by 2.0e-01 .*fp16 may cost 0.01; .*--precision fp16,small=fp32"
    with pytest.raises(ExportFailed, match=words), Bundle(tmp_path / "out") as bundle:
        part.export("small", checkpoint(lies), settings, bundle, lambda _: None)
    assert list(tmp_path.iterdir()) == []


def hear_noise(part: Wrapper, count: int) -> None:
    """Run a part on random feeds, as a lever that is calibrated has it hear clips."""
    for seed in range(count or 16):
        sizes = list(feeds.cases(part.inputs, part.spans, True))[-1]
        example = feeds.make(part.inputs, part.spans, sizes, seed)
        with torch.no_grad():
            part(*(torch.from_numpy(array) for array in example.values()))


@pytest.mark.parametrize("lever", LEVERS)
def test_no_lever_is_pulled_on_a_part_that_numbers_things(lever: str, tmp_path: Path) -> None:
    small = wrappers.pick_role("bridge", "kmeans").tiny()
    assert small.exact
    settings = part.Settings("standard", {"small": lever}, True, None)
    with Bundle(tmp_path / "out") as bundle:
        made = part.export("small", checkpoint(small), settings, bundle, lambda _: None).part
    assert made.precision == PLAIN
    assert made.storage == PLAINEST
    assert made.measured["parity"]["worst_abs"] == 0


# From the end: another worker traces the same parts for test_parts.py, and neither shall wait.
NAMES = [name for name in (*OTHERS, *reversed(PARTS)) if name not in EXACT]
PULLED = [(lever, name) for name in NAMES for lever in LEVERS]
# Those in which a lever has something of its own to do. The others take three levers in turn, but
# never `prune`, behind which a part is traced anew: test_prune.py prunes all of them.
WHOLE = ("whisper", "beats", "qformer", "llama", "qwen2_moe")
TURNS = {p for i in range(3) for p in pairs(NAMES, [n for n in LEVERS if n != "prune"], 4 * i)}


@pytest.mark.parametrize(
    ("lever", "name"), some(PULLED, *(p for p in PULLED if p[1] in WHOLE or p[::-1] in TURNS))
)
def test_a_lever_keeps_to_its_bound_and_makes_no_part_larger(
    lever: str, name: str, tmp_path: Path, trace: Trace
) -> None:
    if name == "wavlm":
        small: Wrapper = hubert.tiny(name)
    elif name not in PARTS:
        spec = wrappers.pick_role("llm", name).tiny()
        with bound("ort"):
            small = wrappers.randomised(Decoder(spec))
    else:
        small = wrappers.pick_role(wrappers.role_of(name), name).tiny()
    pulled = registry.pick(levers, lever, "lever").Lever()
    pulled.prepare(small, lambda: torch.randn(40, 32))
    listens = hasattr(pulled, "calibrate") and small.role in pulled.STORAGE
    if listens:
        pulled.calibrate(small, lambda count: hear_noise(small, count))
    shrinks, whole = hasattr(pulled, "shrink") and small.role in pulled.STORAGE, dict(small.inputs)
    truth = parity.Truth(small, True) if shrinks else None
    before, ports = sum(p.numel() for p in small.parameters()), {}
    if shrinks:
        ports = pulled.shrink(small, lambda: torch.randn(40, 32), None)
    inputs = small.inputs
    traced = graph.trace(small, True) if shrinks else trace(name, small)
    scales = small.state_scales
    small.keep_state_in("float32")
    leaner = pulled.rewrite(traced.clone(), small.role)
    if small.role != "decoder":  # its blocks are longer than a tiny layer: counted below
        assert graph.weight_bytes(leaner) <= graph.weight_bytes(traced)
    graph.save(leaner, tmp_path / "leaner.onnx", small.role)
    if truth is None:
        truth = parity.Truth(small, True, scales)
    truth.shrunk(small, ports)
    measured = parity.measure(tmp_path / "leaner.onnx", truth, inputs)
    untouched = small.role not in pulled.STORAGE
    if listens:  # a tiny part may have nothing that would get smaller
        untouched = {*leaner.graph.initializers} == {*traced.graph.initializers}
    if shrinks:
        untouched = sum(p.numel() for p in small.parameters()) == before
        assert {*inputs} == {*whole}
    assert measured.verdict(pulled.STORAGE.get(small.role, PLAINEST).bound) == (
        "exact" if untouched else "within bound"
    )
    assert pulled.LEAVES_ALONE


@pytest.mark.parametrize("lever", LEVERS)
def test_a_decoder_has_the_bytes_that_its_lever_states(lever: str, trace: Trace) -> None:
    """Layers as wide as the longest block: nothing is padded, and every weight has its bits."""
    sizes: dict[str, Any] = dict(hidden_size=256, intermediate_size=512, vocab_size=128)
    sizes |= dict(num_attention_heads=4, num_key_value_heads=2, num_hidden_layers=1)
    with bound("ort"):
        wide = wrappers.randomised(Decoder(llama.spec(LlamaConfig(**sizes))))
    pulled = registry.pick(levers, lever, "lever").Lever()
    pulled.prepare(wide, lambda: torch.randn(128, 256))
    stored = pulled.STORAGE.get("decoder", PLAINEST)
    bits = 0.0
    for name, weight in wide.named_parameters():
        as_head = name.startswith("lm_head") or any(word in name for word in stored.as_head)
        codes = stored.of_head if as_head else stored.layers
        bits += weight.numel() * (codes.bits if weight.ndim == 2 else 32)
    traced = trace("wide", wide)
    wide.keep_state_in("float32")
    measured = graph.weight_bytes(pulled.rewrite(traced, "decoder"))
    assert measured == pytest.approx(bits / 8, rel=0.03)
