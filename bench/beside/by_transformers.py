"""Whisper's encoder as transformers' own exporter writes it, in ONNX Runtime, fp32."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

from bench.beside import eager, genai
from bench.beside.base import Peer, Place, log_mel
from bench.beside.ort_encoder import GRAPH, OrtEncoderFp32

ENVIRONMENT, REQUIREMENTS = genai.ENVIRONMENT, genai.REQUIREMENTS
PLAIN, FUSED = "transformers_onnx", "transformers_onnx_fused"
PRODUCTS = (PLAIN, FUSED)


def prepare(product: str, place: Place, out: Path) -> None:
    """`OnnxExporter` with a dynamic batch, and for FUSED with ONNX Runtime's fusions."""
    torch, exporter = import_module("torch"), import_module("transformers.exporters.exporter_onnx")
    model = eager.encoder(place.model / "whisper", torch.float32)
    config = exporter.OnnxConfig(dynamic=True, ort_fusions="cpu" if product == FUSED else None)
    feeds = {"input_features": torch.from_numpy(log_mel(place))}
    made = exporter.OnnxExporter().export(model, feeds, config=config)
    exporter.OnnxExporter.save_program(made.program, out / GRAPH)


class TransformersOnnx(OrtEncoderFp32):
    label, product = "transformers' OnnxExporter, ONNX Runtime fp32", PLAIN
    note = "transformers calls it experimental"


class TransformersOnnxFused(OrtEncoderFp32):
    label, product = "transformers' OnnxExporter with fusions, ONNX Runtime fp32", FUSED


ROWS: list[type[Peer]] = [TransformersOnnx, TransformersOnnxFused]
