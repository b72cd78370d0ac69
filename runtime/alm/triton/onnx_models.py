"""Parts before the decoder as models of Triton's onnxruntime backend."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

from alm.artifacts.part import Part
from alm.errors import BadArtifacts
from alm.onnxfile.summary import ANY_RANK, GraphFile
from alm.ports import Port
from alm.triton.pbtxt import Message, Word, parameters
from alm.triton.settings import Settings

# A part waits so long for the rows of other requests. It is little beside what an encoder takes.
WAIT = 2_000  # microseconds
TYPES = {
    **{"bool": "BOOL", "float16": "FP16", "float32": "FP32", "float64": "FP64"},
    **{f"int{bits}": f"INT{bits}" for bits in (8, 16, 32, 64)},
    **{f"uint{bits}": f"UINT{bits}" for bits in (8, 16, 32, 64)},
    "bfloat16": "BF16",
}


def batched(part: Part) -> bool:
    """Whether the first axis of every tensor of the part is its batch.

    Raises:
        BadArtifacts: it is neither that nor 1 in all of them.
    """
    firsts = {port.axes[:1] for port in (*part.inputs.values(), *part.outputs.values())}
    if firsts not in ({("batch",)}, {(1,)}):
        raise BadArtifacts(
            f"part {part.name} has tensors that do not begin with a batch; Triton cannot run it"
        )
    return firsts == {("batch",)}


def config(part: Part, graph: GraphFile, settings: Settings) -> Message:
    """The configuration of a part's model.

    Dims are the graph's own: Triton compares them when it loads the model, those of outputs
    exactly, and an axis that the manifest knows may be open in the graph. A graph for any batch has
    a `max_batch_size` above 0, without which Triton would put in one of its own.
    """
    rows = settings.batch if batched(part) else 0
    name = settings.model(part)
    message: dict[str, Any] = {
        "name": name,
        "platform": "onnxruntime_onnx",
        "backend": "onnxruntime",
        "default_model_filename": PurePosixPath(part.files[0].name).name,
        "max_batch_size": rows,
        "input": _sides(part.inputs, graph.inputs, bool(rows), name),
        "output": _sides(part.outputs, graph.outputs, bool(rows), name),
        "instance_group": [{"kind": Word("KIND_GPU" if settings.gpu else "KIND_CPU")}],
    }
    if rows > 1:
        message["dynamic_batching"] = {"max_queue_delay_microseconds": WAIT}
    # Lengths differ from clip to clip: a plan of memory for each is made in vain, and kept.
    chosen = {"enable_mem_pattern": "0"}
    if settings.threads:
        chosen["intra_op_thread_count"] = str(settings.threads)
    return message | {"parameters": parameters(chosen)}


def tensor(name: str, port: Port, rows: bool, model: str, reshape: bool = True) -> Message:
    """A tensor at the edge of a model; with `rows` its first axis is not spoken of.

    A tensor of nothing but rows has one column for Triton, which takes it away again by `reshape`.

    Raises:
        BadArtifacts: Triton has no such type.
    """
    if port.dtype not in TYPES:
        raise BadArtifacts(f"{name} of {model} is {port.dtype}, which Triton cannot carry")
    axes = port.axes[1:] if rows else port.axes
    dims = [axis if isinstance(axis, int) else -1 for axis in axes]
    plain: dict[str, Any] = {"name": name, "data_type": Word(f"TYPE_{TYPES[port.dtype]}")}
    plain["dims"] = dims or [1]
    return plain | ({"reshape": {}} if reshape and not dims else {})


def _sides(
    ours: Mapping[str, Port], graphs: Mapping[str, Port], rows: bool, model: str
) -> list[Message]:
    made: list[Message] = []
    for name, port in ours.items():
        if name not in graphs:
            raise BadArtifacts(f"{name} is not in the graph of {model}; export it again")
        own = graphs[name]
        known = own if own.axes != (ANY_RANK,) else port
        made.append(tensor(name, Port(port.dtype, known.axes), rows, model))
    return made
