"""ONNX Runtime, from 1.20 on, with its own operators: on any processor, or its CUDA provider."""

from __future__ import annotations

from alm.target import Limits

DIALECT = "ort"
PRECISION = "fp32"
PRECISIONS = {}
ENGINES = ("onnxruntime",)  # whose own operators may be used
# What loses nothing that can be heard and is fastest here: see bench/results.
AUTO = {
    "frontend": "fp32",
    "encoder": "int8",
    "bridge": "int8",
    "decoder": "int4head8",
    "table": "int8",
}
LIMITS = Limits(
    engine="ONNX Runtime",
    source="opset 24 is the newest that was tried, with ONNX Runtime 1.24 to 1.32",
    opsets=(7, 24),
    domains=("", "com.microsoft"),
    overflows={
        "MatMulInteger": 1,
        "ConvInteger": 1,
        "QLinearMatMul": 3,
        "com.microsoft::MatMulIntegerToFloat": 1,
        "com.microsoft::DynamicQuantizeMatMul": 1,
    },
)
BUILD = None
