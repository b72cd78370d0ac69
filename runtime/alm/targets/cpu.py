"""ONNX Runtime, from 1.20 on, with its own operators: on any processor, or its CUDA provider."""

from __future__ import annotations

from alm.precision import Wanted
from alm.target import Limits

DIALECT = "ort"
PRECISION = Wanted()
BACKENDS = ("onnxruntime",)  # whose own operators may be used
# What loses nothing that can be heard and is fastest here: see bench/results.
AUTO = {
    "frontend": Wanted(),
    "encoder": Wanted(8),
    "bridge": Wanted(8),
    "decoder": Wanted(4, head=8),
    "table": Wanted(8),
}
LIMITS = Limits(
    backend="ONNX Runtime",
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
