"""Whisper's encoder as Optimum exports it, in ONNX Runtime, fp32."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

from bench.beside import eager
from bench.beside.base import Peer, Place
from bench.beside.ort_encoder import GRAPH, OrtEncoderFp32

# Its ONNX exporter is a package of its own, the newest of which wants transformers below 4.58.
ENVIRONMENT = "optimum"
REQUIREMENTS = ["torch==2.13.0", "optimum-onnx", "onnx", "onnxruntime", "onnxscript"]
PRODUCTS = ("optimum",)


def prepare(product: str, place: Place, out: Path) -> None:
    """What `optimum-cli export onnx` calls for the encoder of a Whisper."""
    torch = import_module("torch")
    model = eager.encoder(place.model / "whisper", torch.float32)
    configs = import_module("optimum.exporters.onnx.model_configs")
    whole = configs.WhisperOnnxConfig(model.config, task="automatic-speech-recognition")
    config = whole.with_behavior("encoder")
    import_module("optimum.exporters.onnx").export(model, config, out / GRAPH)


class OptimumOnnx(OrtEncoderFp32):
    label, product = "Optimum, ONNX Runtime fp32", PRODUCTS[0]


ROWS: list[type[Peer]] = [OptimumOnnx]
