"""OpenVINO on the CPU: quick at prompts where weights have 4 or 8 bits, slower at single steps.

Weights of 4 and 8 bits keep their size in memory, and what they are multiplied with is rounded to
int8 in groups, as ONNX Runtime does it, with the same error. float16 weights become float32.
Dynamically quantized products (DynamicQuantizeLinear and MatMulInteger), which OpenVINO does in
slow separate steps, are read as products with 8 bit weights: half the time, a quarter of the
memory.

Of the decoder's dialects it reads `decomposed`, whose cache is copied in every step. Keeping it in
OpenVINO's states would save a tenth of a step after 100 positions and a fifth after 500. Of the
others it knows no TensorScatter and no GroupQueryAttention as ONNX Runtime means it; and teaching
it the first does not help: its Attention (2026.4) loses the batch where heads share keys, and then
writes beyond its memory.
"""

# pyright: reportMissingImports=false
from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from alm.artifacts.part import Part
from alm.errors import BadArtifacts, MissingPackage
from alm.host import archive
from alm.onnxfile import summary
from alm.onnxfile.summary import GraphFile
from alm.parsing import printable
from alm.session import BackendOptions, Feed, Kept, Session

# alm's name of a provider -> OpenVINO's device.
PROVIDERS = {"openvino": "CPU"}
ON_CPU = ("openvino",)

SETTINGS = {
    "PERFORMANCE_HINT": "LATENCY",
    # On processors with bfloat16 it would compute in that, and transcripts would change.
    "INFERENCE_PRECISION_HINT": "f32",
    "KV_CACHE_PRECISION": "f32",
    # The block of the exporter's weights; 0 keeps inputs in float32 and takes 2 to 8 times as long.
    "DYNAMIC_QUANTIZATION_GROUP_SIZE": "128",
}

# OpenVINO gives its cache back as long as what is valid in it, not of the capacity that it had.
FOREIGN = "com.microsoft::GroupQueryAttention"
REMEDY = "export with: --dialect decomposed"


def _package() -> Any:
    try:
        import openvino
    except ImportError as error:
        raise MissingPackage(
            "OpenVINO is not installed; try: pip install 'alm-edge[openvino]'"
        ) from error
    return openvino


def _dynamic_quantize_linear(node: Any) -> Any:
    """x as it is, scale 1 and zero point 0: it is rounded inside of the product."""
    from openvino import opset13 as ops

    # Not the input itself: as an output of this operator it would lose its name.
    x = ops.convert(node.get_input(0), "f32")
    one, none = ops.constant(np.float32(1)), ops.constant(np.uint8(0))
    return [operation.output(0) for operation in (x, one, none)]


def _matmul_integer(node: Any) -> Any:
    """(x - zero) (w - zero') in float32, the weight [in, out] left in 8 bits."""
    from openvino import opset13 as ops

    x, weight = (ops.convert(node.get_input(i), "f32") for i in range(2))
    if node.get_input_size() > 2:
        x = ops.subtract(x, ops.convert(node.get_input(2), "f32"))
    if node.get_input_size() > 3:
        weight = ops.subtract(weight, ops.convert(node.get_input(3), "f32"))
    # It takes weights for quantized only where they are scaled by something other than 1.
    width = node.get_input(1).get_partial_shape()[1].get_length()
    scale = ops.constant(np.full((1, width), 1 / 128, np.float32))
    y = ops.matmul(x, ops.multiply(weight, scale), False, False)
    return ops.multiply(y, ops.constant(np.float32(128))).outputs()


READERS = {
    "DynamicQuantizeLinear": _dynamic_quantize_linear,
    "MatMulInteger": _matmul_integer,
}


@lru_cache(1)
def _core() -> Any:
    core = _package().Core()  # may be used from several threads
    from openvino.frontend.onnx import ConversionExtension

    for operator, read in READERS.items():
        core.add_extension(ConversionExtension(operator, read))
    return core


def available() -> list[str]:
    """Providers that this installation can run.

    Raises:
        MissingPackage: openvino is not installed.
    """
    there = _core().available_devices
    return [name for name, device in PROVIDERS.items() if device in there]


def open_session(part: Part, folder: Path, options: BackendOptions) -> Session:
    """Open the graph of a part.

    Raises:
        MissingPackage: openvino is not installed, or it has no such device here.
        BadArtifacts: OpenVINO cannot load the graph; where an operator is the reason it is named.
    """
    if options.provider not in available():
        there = ", ".join(available())
        raise MissingPackage(f"provider {options.provider!r} is not installed; there is: {there}")
    if archive.is_one(folder):
        raise BadArtifacts(
            f"OpenVINO opens no graph inside of {folder}; use --provider cpu, or unpack it with: "
            f"alm unpack {folder} DIR"
        )
    graph = folder / part.files[0].name
    graph_file = summary.read(graph)
    if FOREIGN in graph_file.nodes:
        raise BadArtifacts(_unknown(graph, FOREIGN))
    threads = {"INFERENCE_NUM_THREADS": str(options.threads)} if options.threads else {}
    try:
        model = _core().read_model(graph)
        compiled = _core().compile_model(model, PROVIDERS[options.provider], SETTINGS | threads)
    except Exception as error:  # RuntimeError, and pybind11's own of a reader below
        unknown = re.search(r"No conversion rule found for operations: (.+)", str(error))
        if unknown:
            raise BadArtifacts(_unknown(graph, unknown[1].strip())) from error
        raise BadArtifacts(f"OpenVINO cannot load {graph}: {_reason(error)}") from error
    return OpenvinoSession(compiled, graph_file)


def _unknown(graph: Path, operators: str) -> str:
    return f"OpenVINO cannot read {operators}, which {graph} needs; {REMEDY}"


@dataclass
class Handle(Kept):
    """A tensor in the backend's memory, or around an array's."""

    tensor: Any


class OpenvinoSession(Session):
    """One graph in OpenVINO."""

    in_place = True

    def __init__(self, compiled: Any, file: GraphFile) -> None:
        self._compiled = compiled
        self._idle: list[Any] = []  # requests; each serves one run at a time
        self.inputs, self.outputs = file.inputs, file.outputs  # axes have names in the file alone
        self._blank = {name: _blank(compiled.output(name)) for name in self.outputs}

    def run(
        self, feeds: Mapping[str, Feed], keep: Mapping[str, Kept | None] | None = None
    ) -> dict[str, Any]:
        """See `Session.run`."""
        keep = keep or {}
        request = self._idle.pop() if self._idle else self._compiled.create_infer_request()
        outputs: dict[str, Handle] = {}
        try:
            for name, feed in feeds.items():
                handle = feed if isinstance(feed, Handle) else self.hold(np.asarray(feed))
                request.set_tensor(name, handle.tensor)
            for name in self.outputs:
                place = keep.get(name)
                # A tensor of its own in every run: the request would overwrite its own in the next.
                outputs[name] = place if isinstance(place, Handle) else Handle(self._blank[name]())
                request.set_tensor(name, outputs[name].tensor)
            request.infer()
        except RuntimeError as error:
            raise BadArtifacts(f"OpenVINO failed: {_reason(error)}") from error
        self._idle.append(request)
        return {
            name: handle if name in keep else handle.tensor.data for name, handle in outputs.items()
        }

    def hold(self, array: np.ndarray) -> Handle:
        """See `Session.hold`. It works in the array's own memory, where that may be written."""
        from openvino import Tensor

        # It shares no memory that may only be read.
        return Handle(Tensor(np.require(array, requirements=["C", "W"]), shared_memory=True))

    def fetch(self, kept: Kept) -> np.ndarray:
        """See `Session.fetch`."""
        assert isinstance(kept, Handle)
        return kept.tensor.data


def _blank(port: Any) -> Callable[[], Any]:
    """Makes tensors for an output; dynamic axes are 0, and grow when it is written."""
    from openvino import Shape, Tensor

    axes = [axis.get_length() if axis.is_static else 0 for axis in port.partial_shape]
    return lambda: Tensor(port.element_type, Shape(axes))


def _reason(error: Exception) -> str:
    """The first line of OpenVINO's message that is about the matter, not about its own sources."""
    lines = [line.strip() for line in str(error).splitlines()]
    relevant = [x for x in lines if x and not x.startswith(("Exception from src/", "Check '"))]
    return printable((relevant or lines or [""])[0], 500)
