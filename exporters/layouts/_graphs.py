"""Graphs of an artifact folder as other runtimes want them: chained, with other ports.

Weights that lie outside of a graph stay in their file, as they are: none is read or written here.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import NameFixPass

from alm.artifacts.part import Part
from alm.errors import BadArtifacts
from alm.ports import CACHE_IN, CACHE_OUT, FROM_END

OPSET, IR_VERSION = 20, 10
BATCH, PAST, TOTAL = "batch_size", "past_sequence_length", "total_sequence_length"
KNOWN = {"inputs_embeds", "past_lengths", "seq_lengths", FROM_END}  # of a decoder, but its cache


@dataclass
class Files:
    """What a layout writes: into a site, from which it is moved into place when all is there."""

    artifacts: Path
    site: Path
    beside: bool  # its graphs will lie beside ours, whose files they share

    def take(self, name: str, called: str) -> None:
        """Have the file `name` of the artifacts in the layout, called so."""
        if self.beside and called == name:
            return
        target = self.site / called
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(self.artifacts / name, target)  # a link is refused where it is read

    def write(self, name: str, data: Any) -> None:
        """Write a JSON file."""
        (self.site / name).write_text(json.dumps(data, indent=1) + "\n", "utf-8")

    def save(self, model: ir.Model, graph: str, *, suffix: str = "") -> int:
        """Write the graph and have the files of its external weights beside it.

        Args:
            model: what was made of graphs of the artifacts.
            graph: its file in the layout.
            suffix: what such a file's name is: the graph's with this behind it, then numbers; as in
                the artifacts where there is none.

        Returns:
            How many such files there are.
        """
        path = self.site / graph
        path.parent.mkdir(parents=True, exist_ok=True)
        called: dict[str, str] = {}
        for value in model.graph.initializers.values():
            held = value.const_value
            if not isinstance(held, ir.ExternalTensor):
                continue
            name, count = str(held.location), len(called)
            ours = f"{path.name}{suffix}" + (f"_{count}" if count else "") if suffix else name
            if name not in called:
                called[name] = ours
                self.take(name, (Path(graph).parent / ours).as_posix())
            value.const_value = _external(value.name or "", held, called[name])
        NameFixPass()(model)
        ir.save(model, path)
        return len(called)


def _external(name: str, held: ir.ExternalTensor, data: str) -> ir.ExternalTensor:
    where = held.offset, held.length
    return ir.ExternalTensor(data, *where, held.dtype, shape=held.shape, name=name)


@dataclass
class Site:
    """A graph under construction."""

    nodes: list[ir.Node] = field(default_factory=list)
    constants: dict[str, ir.Value] = field(default_factory=dict)

    def op(self, kind: str, *inputs: ir.Value, **attributes: int) -> ir.Value:
        """The output of one more node."""
        held = [ir.AttrInt64(name, value) for name, value in attributes.items()]
        node = ir.Node("", kind, inputs, held, num_outputs=1)
        self.nodes.append(node)
        node.outputs[0].name = f"layout/{kind}_{len(self.nodes)}"
        return node.outputs[0]

    def cast(self, value: ir.Value, dtype: ir.DataType) -> ir.Value:
        """The value as another type."""
        return self.op("Cast", value, to=int(dtype))

    def size(self, value: ir.Value, axis: int) -> ir.Value:
        """How long an axis is: int64 [1]."""
        return self.op("Shape", value, start=axis, end=axis + 1)

    def ints(self, *numbers: int) -> ir.Value:
        """int64 [count]."""
        name = "layout/" + "_".join(map(str, numbers))
        if name not in self.constants:
            self.constants[name] = self.constant(name, np.array(numbers, np.int64))
        return self.constants[name]

    def number(self, name: str, value: int) -> ir.Value:
        """int64, of no axis."""
        return self.constant(name, np.array(value, np.int64))

    def constant(self, name: str, array: np.ndarray) -> ir.Value:
        """A constant of any type."""
        value = ir.Value(name=name, const_value=ir.tensor(array, name=name))
        self.constants[name] = value
        return value

    def model(self, inputs: Sequence[ir.Value], outputs: Sequence[ir.Value]) -> ir.Model:
        """The graph of these nodes."""
        graph = ir.Graph(
            inputs,
            outputs,
            nodes=self.nodes,
            initializers=[*self.constants.values()],
            opset_imports={"": OPSET},
            name="layout",
        )
        return ir.Model(graph, ir_version=IR_VERSION, producer_name="alm-edge")


def port(name: str, dtype: ir.DataType, *axes: int | str) -> ir.Value:
    """A graph's input."""
    return ir.Value(name=name, shape=ir.Shape(axes), type=ir.TensorType(dtype))


def named(value: ir.Value, name: str, dtype: ir.DataType, *axes: int | str) -> ir.Value:
    """A value made a graph's output."""
    value.name, value.shape, value.type = name, ir.Shape(axes), ir.TensorType(dtype)
    return value


def decoder(folder: Path, part: Part) -> ir.Model:
    """The decoder with an attention mask in the place of lengths, and the last logits alone.

    Lengths follow from shapes: all that the mask covers is real, so a row is not padded. The cache
    grows, or is one buffer of a fixed capacity on both sides: GroupQueryAttention takes either.

    Raises:
        BadArtifacts: a decoder that takes more than that.
    """
    cached = {name for name in part.inputs if name.startswith(CACHE_IN)}
    strange = [name for name in part.inputs if name not in KNOWN | cached]
    integer = [n for n in cached if not part.inputs[n].dtype.startswith("float")]
    if strange or integer:
        reason = f"takes {', '.join(strange)}" if strange else "has its cache in integers"
        raise BadArtifacts(f"no layout can hold part {part.name}: it {reason}")
    model = ir.load(folder / part.files[0].name)
    graph, site = model.graph, Site()
    given = {value.name or "": value for value in graph.inputs}
    batch = part.inputs["inputs_embeds"].axes[0]
    rows: int | str = BATCH if isinstance(batch, str) else batch
    embeds = given["inputs_embeds"]
    mask = port("attention_mask", ir.DataType.INT64, rows, TOTAL)
    seq, held = site.size(embeds, 1), site.size(embeds, 0)
    past = site.op("Sub", site.size(mask, 1), seq)
    replace(given["past_lengths"], site.op("Expand", past, held))
    replace(given["seq_lengths"], site.op("Expand", seq, held))
    pair = site.op("Concat", held, site.ints(1), axis=0)
    if FROM_END in given:
        replace(given[FROM_END], site.op("Expand", site.ints(0), pair))
    caches = [value for name, value in given.items() if name in cached]
    graph.inputs[:] = [embeds, mask, *caches]
    hidden = int(part.inputs["inputs_embeds"].axes[-1])
    embeds.shape = ir.Shape((rows, "sequence_length", hidden))
    for values, axis in ((caches, PAST), (graph.outputs[1:], TOTAL)):
        for value in values:
            heads, wide = (value.shape or ir.Shape([]))[1], (value.shape or ir.Shape([]))[3]
            value.shape = ir.Shape((rows, heads, axis, wide))
    vocab = part.outputs["logits"].axes[-1]
    graph.outputs[0].shape = ir.Shape((rows, 1, vocab))
    graph.initializers.update(site.constants)
    graph.insert_before(graph[0], site.nodes)
    assert all((value.name or "").startswith(CACHE_OUT) for value in graph.outputs[1:])
    return model


def replace(old: ir.Value, new: ir.Value) -> None:
    """Have every node that takes `old` take `new`."""
    for use in tuple(old.uses()):
        use.node.replace_input_with(use.idx, new)


def chain(folder: Path, parts: Iterable[Part]) -> ir.Model:
    """Graphs one after the other as one, each input taken by its name from what was made before.

    The inputs are what none of them makes, the outputs all that they make.

    Raises:
        BadArtifacts: they are of several opsets.
    """
    there: dict[str, ir.Value] = {}
    inputs: dict[str, ir.Value] = {}
    whole = ir.Graph([], [], nodes=[], opset_imports={}, name="layout")
    for part in parts:
        graph = ir.load(folder / part.files[0].name).graph
        for domain, version in graph.opset_imports.items():
            if whole.opset_imports.setdefault(domain, version) != version:
                raise BadArtifacts(f"part {part.name} is of another opset than those before it")
        outer = {value.name or "" for value in (*graph.inputs, *graph.outputs)}
        for value in graph.inputs:
            name = value.name or ""
            if name in there:
                replace(value, there[name])
            elif name in inputs:
                replace(value, inputs[name])
            else:
                inputs[name] = value
        made = {value.name or "": value for value in graph.outputs}
        for value in [v for v in graph.initializers.values() if not v.is_graph_input()]:
            graph.initializers.pop(value.name or "")
            value.name = f"{part.name}/{value.name}"
            whole.initializers.add(value)
        nodes = [*graph]
        graph.inputs.clear()
        graph.outputs.clear()
        graph.remove(nodes)
        for node in nodes:
            for value in node.outputs:
                value.name = value.name if value.name in outer else f"{part.name}/{value.name}"
        whole.extend(nodes)
        there |= made
    whole.inputs.extend(inputs.values())
    whole.outputs.extend(there.values())
    return ir.Model(whole, ir_version=IR_VERSION, producer_name="alm-edge")


def embedded(site: Site, folder: Path, part: Part, ids: ir.Value) -> ir.Value:
    """float32 embeddings [batch, seq, hidden] of ids [batch, seq]: of the embedding table's rows.

    An .npy file is a header and the values; a graph's weight may begin anywhere in a file.
    """
    rows: list[ir.Value] = []  # of the table, and behind it a scale for each where it is int8
    for file in part.files:
        array = np.load(folder / file.name, mmap_mode="r")
        assert isinstance(array, np.memmap)
        dtype, shape = ir.DataType.from_numpy(array.dtype), ir.Shape(array.shape)
        place = file.name, array.offset, array.nbytes, dtype
        tensor = ir.ExternalTensor(*place, shape=shape, name=file.name, base_dir=folder)
        kind = ir.TensorType(dtype)
        rows.append(ir.Value(name=file.name, const_value=tensor, shape=shape, type=kind))
        site.constants[file.name] = rows[-1]
    found = site.cast(site.op("Gather", rows[0], ids, axis=0), ir.DataType.FLOAT)
    if len(rows) == 1:
        return found
    scales = site.op("Unsqueeze", site.op("Gather", rows[1], ids, axis=0), site.ints(-1))
    return site.op("Mul", found, scales)
