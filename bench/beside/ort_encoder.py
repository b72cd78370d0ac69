"""Whisper's encoder as transformers' module exports it, in ONNX Runtime: fp32 and int8."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from bench.beside import eager, genai
from bench.beside.base import Encoder, Peer, Place, log_mel
from bench.beside.shapes import FRAMES

ENVIRONMENT, REQUIREMENTS = genai.ENVIRONMENT, genai.REQUIREMENTS
PRODUCTS = ("encoder_fp32", "encoder_int8")
NEEDS = {"encoder_int8": "encoder_fp32"}  # product -> the one that it is made of
GRAPH = "encoder.onnx"


def prepare(product: str, place: Place, out: Path) -> None:
    """torch's exporter, then ONNX Runtime's own dynamic quantization."""
    if product == "encoder_fp32":
        _export(place, out)
        return
    quantization: Any = import_module("onnxruntime.quantization")
    quantization.quantize_dynamic(
        place.product("encoder_fp32") / GRAPH,
        out / GRAPH,
        per_channel=True,
        weight_type=quantization.QuantType.QInt8,
        op_types_to_quantize=["MatMul"],
        use_external_data_format=True,
        extra_options={"MatMulConstBOnly": True},
    )


def _export(place: Place, out: Path) -> None:
    onnx, torch = import_module("onnx"), import_module("torch")
    model = eager.encoder(place.model / "whisper", torch.float32)

    class Plain(torch.nn.Module):
        """A tensor in and a tensor out."""

        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, input_features: Any) -> Any:
            return self.model(input_features).last_hidden_state

    raw = out / "raw.onnx"
    example = (torch.randn(1, place.ears.mels, FRAMES),)
    torch.onnx.export(
        Plain().eval(),
        example,
        raw,
        input_names=["input_features"],
        output_names=["hidden"],
        opset_version=20,
        dynamo=True,
        external_data=True,
    )
    graph = _folded(onnx.load(raw))
    onnx.save(graph, out / GRAPH, save_as_external_data=True, location=f"{GRAPH}.data")
    for file in out.glob("raw.onnx*"):
        file.unlink()


def _folded(model: Any) -> Any:
    """Transpose(weight) -> MatMul without the Transpose: the quantizer wants to see constants."""
    helper, numbers = import_module("onnx.helper"), import_module("onnx.numpy_helper")
    graph = model.graph
    weights = {tensor.name: tensor for tensor in graph.initializer}
    for node in [n for n in graph.node if n.op_type == "Transpose" and n.input[0] in weights]:
        order = list(helper.get_node_attr_value(node, "perm"))
        turned = np.ascontiguousarray(numbers.to_array(weights[node.input[0]]).transpose(order))
        graph.initializer.append(numbers.from_array(turned, node.output[0]))
        graph.node.remove(node)
    used = {name for node in graph.node for name in node.input}
    kept = [tensor for tensor in graph.initializer if tensor.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)
    return model


class OrtEncoderInt8(Encoder):
    label, product = "ONNX Runtime int8, dynamic", "encoder_int8"
    note = "quantize_dynamic of the products with weights, per channel"

    def imports(self) -> None:
        self.ort: Any = import_module("onnxruntime")

    def versions(self) -> str:
        return f"onnxruntime {self.ort.__version__}"

    def load(self) -> None:
        settings = self.ort.SessionOptions()
        settings.intra_op_num_threads = self.place.threads
        graph = str(self.folder / GRAPH)
        self.session = self.ort.InferenceSession(graph, settings, ["CPUExecutionProvider"])
        self.feeds = {"input_features": log_mel(self.place)}

    def encode(self) -> Any:
        return self.session.run(None, self.feeds)[0]

    def files(self) -> list[Path]:
        return sorted(self.folder.glob(f"{GRAPH}*"))


class OrtEncoderFp32(OrtEncoderInt8):
    label, product, note = "ONNX Runtime fp32", "encoder_fp32", ""


ROWS: list[type[Peer]] = [OrtEncoderInt8, OrtEncoderFp32]
