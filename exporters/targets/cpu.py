"""ONNX Runtime, from 1.20 on, with its own operators: on any processor, or its CUDA provider."""

from __future__ import annotations

DIALECT = "ort"
PRECISION = "fp32"
ENGINES = ("onnxruntime",)  # whose own operators may be used
# What loses nothing that can be heard and is fastest here: see bench/results.
AUTO = {
    "frontend": "fp32",
    "encoder": "int8",
    "bridge": "int8",
    "decoder": "int4head8",
    "table": "int8",
}
