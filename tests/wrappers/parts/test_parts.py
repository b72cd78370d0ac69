"""Every part, found by listing the folder: built tiny, exported, compared with its torch module."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import wrappers
from alm import registry
from alm.golden import vectors
from alm.onnxfile import summary
from exporters import feeds, graph, parity, simplify
from tests.products import some
from wrappers import Wrapper, dialects
from wrappers.dialect import bound
from wrappers.encoders import hubert
from wrappers.layers.decoder import Decoder

PARTS = [name for role in ("frontend", "encoder", "bridge") for name in wrappers.with_role(role)]
LLMS = wrappers.with_role("llm")
DIALECTS = registry.names(dialects)
# Of a file whose models differ in their graphs, those that its `tiny()` is not.
KINDS = [f"wavlm-{dialect}" for dialect in DIALECTS]
DECODERS = [f"{llm}-{dialect}" for llm in LLMS for dialect in DIALECTS]
# Graphs of the others are stepped in test_llm_files.py and test_ort_dialect.py.
SOME = some(DECODERS, *(f"llama-{dialect}" for dialect in DIALECTS))

# Operators that depend on data for their shapes, or that no engine on a device takes.
UNWANTED = {"NonZero", "Loop", "If", "Scan", "STFT", "DFT", "Unique", "Compress", "SequenceAt"}


def build(name: str) -> Wrapper:
    kind, _, dialect = name.partition("-")
    if not dialect:
        module: Any = wrappers.pick_role(wrappers.role_of(kind), kind)
        return module.tiny()
    with bound(dialect):
        if name in KINDS:
            return hubert.tiny(kind)
        return wrappers.randomised(Decoder(wrappers.pick_role("llm", kind).tiny()))


@pytest.fixture(scope="module", params=[*PARTS, *some(KINDS, KINDS[0]), *SOME])
def exported(request: pytest.FixtureRequest, tmp_path_factory: Any) -> tuple[Wrapper, Path]:
    """A part and its graph, simplified, with a dynamic batch."""
    part = build(request.param)
    path = tmp_path_factory.mktemp("part") / "part.onnx"
    graph.save(simplify.simplify(graph.trace(part, dynamic_batch=True)), path, part.role)
    return part, path


def test_a_part_is_its_torch_module(exported: tuple[Wrapper, Path]) -> None:
    part, path = exported
    measured = parity.measure(path, parity.Truth(part, dynamic_batch=True), part.inputs)
    assert measured.cases == 4
    assert measured.worst_rel < 1e-4, measured


def test_lengths_that_were_never_traced_are_right(exported: tuple[Wrapper, Path]) -> None:
    part, path = exported
    session = graph.opened(path, part)
    for seed, batch in enumerate((5, 1)):
        sizes = {axis: span.least + 3 + seed for axis, span in part.spans.items()}
        sizes |= {"batch": batch} | ({"capacity": 40} if "capacity" in sizes else {})
        example = feeds.make(part.inputs, part.spans, sizes, seed)
        with torch.no_grad():
            made = part(*map(torch.from_numpy, example.values()))
        wanted = made if isinstance(made, tuple) else (made,)
        got = session.run(example)
        for (name, port), want in zip(part.outputs.items(), wanted, strict=True):
            scale = max(1.0, float(want.abs().max()))
            ours, theirs = (vectors.filled(a, port, example) for a in (got[name], want.numpy()))
            assert np.abs(ours - theirs).max() < 1e-4 * scale


def test_names_and_axes_in_the_graph_are_the_ports(exported: tuple[Wrapper, Path]) -> None:
    part, path = exported
    said = summary.read(path)
    for ours, theirs in ((part.inputs, said.inputs), (part.outputs, said.outputs)):
        assert {n: (p.dtype, p.axes) for n, p in ours.items()} == {
            n: (p.dtype, p.axes) for n, p in theirs.items()
        }


def test_a_graph_holds_only_what_a_device_can_run(exported: tuple[Wrapper, Path]) -> None:
    part, path = exported
    said = summary.read(path)
    assert not UNWANTED & set(said.nodes)
    own = {n.split("::")[0] for n in said.nodes if "::" in n}
    allowed = (
        {"com.microsoft"}
        if getattr(part, "dialect", None) is registry.pick(dialects, "ort")
        else set()
    )
    assert own <= allowed
    assert said.opsets == {"": part.opset} | dict.fromkeys(allowed, 1)


def test_weights_are_stored_once(exported: tuple[Wrapper, Path]) -> None:
    part, path = exported
    stored = sum(file.stat().st_size for file in path.parent.iterdir())
    held = sum(t.nbytes for t in (*part.parameters(), *part.buffers()))
    assert stored < held + 60_000
    assert path.with_name("part.onnx.data").exists() == (part.role == "decoder")


ONE_ROW = [*PARTS, *(f"llama-{d}" for d in DIALECTS)]


@pytest.mark.parametrize(
    "name",
    some(
        ONE_ROW,
        *("mel", "fbank", "whisper", "beats", "hubert", "granite_speech", "qwen3_asr"),
        *("window_qformer", "projector", "llama-ort", "llama-decomposed"),
    ),
)
def test_without_a_dynamic_batch_it_is_one(name: str, tmp_path: Path) -> None:
    part, path = build(name), tmp_path / "part.onnx"
    graph.save(graph.trace(part, dynamic_batch=False), path, part.role)
    axes = [port.axes[0] for port in summary.read(path).inputs.values()]
    assert set(axes) == {1}
    inputs = graph.fixed(part.inputs, dynamic_batch=False)
    assert parity.measure(path, parity.Truth(part, dynamic_batch=False), inputs).good


def test_a_wrong_name_lists_the_right_ones() -> None:
    with pytest.raises(ValueError, match=", ".join(wrappers.with_role("llm"))):
        wrappers.pick_role("llm", "gpt9")
