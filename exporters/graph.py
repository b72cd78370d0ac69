"""Wrapper -> graph: torch's exporter, with names, axes and external data as in the ports."""

from __future__ import annotations

import gc
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import onnx_ir as ir
import torch
from onnxscript import optimizer
from torch import Tensor, nn

from alm import backends
from alm.artifacts.part import Part
from alm.parsing import File
from alm.ports import Port
from alm.session import BackendOptions, Session
from alm.version import __version__
from exporters import feeds, lazy
from wrappers import Wrapper
from wrappers.checkpoint.weights.hollow import weight, weightless

INLINE_BYTES = 8 * 2**20  # a graph with less weight than this is one file


class Flat(nn.Module):
    """The part behind a signature that the exporter can describe: so many tensors in a row."""

    def __init__(self, part: nn.Module) -> None:
        super().__init__()
        self.part = part

    def forward(self, *tensors: Tensor) -> Any:
        return self.part(*tensors)


def fixed(ports: Mapping[str, Port], dynamic_batch: bool) -> dict[str, Port]:
    """The ports as the graph will have them: the batch is 1 unless it is dynamic."""
    return {n: port if dynamic_batch else port.fix(batch=1) for n, port in ports.items()}


def trace(part: Wrapper, dynamic_batch: bool) -> ir.Model:
    """Trace a part into a graph with every dynamic axis its ports name.

    No weight is read: the graph's are lazy, and come from the part when they are written.
    """
    part.eval()
    inputs, outputs = fixed(part.inputs, dynamic_batch), fixed(part.outputs, dynamic_batch)
    sizes = feeds.traced_sizes(part.spans, 2 if dynamic_batch else 1)
    example = feeds.make(part.inputs, part.spans, sizes)
    dims = {axis: torch.export.Dim(axis) for port in inputs.values() for axis in _named(port)}
    shapes = tuple(
        {i: dims[axis] for i, axis in enumerate(port.axes) if isinstance(axis, str)}
        for port in inputs.values()
    )
    import torch._dynamo as dynamo  # takes a second

    # Shapes of stand-ins are symbols, whose cache costs more than it saves: 15 % of a trace.
    uncached = dynamo.config.patch(fake_tensor_cache_enabled=False)
    with (
        warnings.catch_warnings(),
        torch.no_grad(),
        weightless(part),
        uncached,
        _seldom_collected(),
    ):
        warnings.simplefilter("ignore")  # the exporter's own deprecations and equal axis names
        for talker in ("torch.onnx", "onnxscript"):
            logging.getLogger(talker).setLevel(logging.ERROR)
        program = torch.onnx.export(
            Flat(part),
            tuple(torch.from_numpy(array) for array in example.values()),
            dynamic_shapes={"tensors": shapes},
            input_names=list(inputs),
            output_names=list(outputs),
            opset_version=part.opset,
            dynamo=True,
            optimize=False,  # it would read the values of stand-ins
            verbose=False,
        )
    assert program is not None
    model = program.model
    _give_weights(model.graph, part)
    lazy.fold_joins(model.graph)
    lazy.fold_views(model.graph)
    lazy.fold_transposes(model.graph)
    optimizer.optimize_ir(model)
    return part.finish(_labelled(model, inputs, outputs))


@contextmanager
def _seldom_collected() -> Iterator[None]:
    """Inside, garbage is looked for seldom: a tenth of a trace.

    The tracer makes millions of objects, and hardly a circle among them.
    """
    before = gc.get_threshold()
    gc.set_threshold(100_000, 50, 1000)
    try:
        yield
    finally:
        gc.set_threshold(*before)


def _give_weights(graph: ir.Graph, part: Wrapper) -> None:
    """Lazy weights, named as in the checkpoint, in the place of the stand-ins traced with."""
    for name in [n for n in graph.initializers if n.removeprefix("part.") in _parameters(part)]:
        value = graph.initializers.pop(name)
        value.name = checkpoint_name = name.removeprefix("part.")
        value.const_value = lazy.Weight(
            checkpoint_name, lazy.shape_of(value), partial(weight, part, checkpoint_name)
        )
        graph.initializers.add(value)


def _parameters(part: Wrapper) -> set[str]:
    return {name for name, _ in part.named_parameters(remove_duplicate=False)}


def _named(port: Port) -> list[str]:
    return [axis for axis in port.axes if isinstance(axis, str)]


def _labelled(model: ir.Model, inputs: Mapping[str, Port], outputs: Mapping[str, Port]) -> ir.Model:
    """Names and axes exactly as in the ports; the exporter writes sums for grown axes."""
    graph = model.graph
    for values, ports in ((graph.inputs, inputs), (graph.outputs, outputs)):
        for value, (name, port) in zip(values, ports.items(), strict=True):
            value.name = name
            value.shape = ir.Shape(port.axes)
            value.dtype = ir.DataType.from_numpy(_numpy(port.dtype))
    model.producer_name, model.producer_version = "alm-edge", __version__
    for node in graph.all_nodes():
        node.metadata_props.clear()  # stack traces: they name the exporting machine's paths
        node.doc_string = None
    for value in graph.initializers.values():
        value.metadata_props.clear()
    model.metadata_props.clear()
    graph.metadata_props.clear()
    for value in (*graph.inputs, *graph.outputs):
        value.metadata_props.clear()
    return model


def _numpy(dtype: str) -> Any:
    import numpy as np

    return np.dtype(dtype)


def weight_bytes(model: ir.Model) -> int:
    """Bytes of all initializers."""
    tensors = (value.const_value for value in model.graph.initializers.values())
    return sum(tensor.nbytes for tensor in tensors if tensor is not None)


def save(model: ir.Model, path: Path, role: str) -> list[Path]:
    """Write the graph; weights that are many, and a decoder's always, go into PATH.data.

    Returns:
        The files written, the graph first.
    """
    data = path.with_name(path.name + ".data")
    data.unlink(missing_ok=True)  # a writer appends to what is there
    if role != "decoder" and weight_bytes(model) <= INLINE_BYTES:
        ir.save(model, path)
        return [path]
    ir.save(model, path, external_data=data.name, size_threshold_bytes=1024)
    return [path, data]


class Traced(Protocol):
    """What `opened` needs of the module that a graph was made of."""

    role: str
    inputs: dict[str, Port]
    outputs: dict[str, Port]
    chunk_rows: int


CPU = BackendOptions("cpu")


def opened(path: Path, of: Traced, options: BackendOptions = CPU) -> Session:
    """A graph that was saved a moment ago, opened as the runtime opens a part."""
    files, rows = (File(path.name, 0, ""),), of.chunk_rows
    part = Part(path.stem, of.role, files, of.inputs, of.outputs, chunk_rows=rows)
    return backends.open_session(part, path.parent, options, trusted=True)
