"""The ONNX Runtime that is installed here, on any processor, or its CUDA provider."""

from __future__ import annotations

import onnxruntime

# Opset 24 came with 1.24, which there is not for Python 3.10: what is compared here must run here.
_NEWEST = tuple(int(n) for n in onnxruntime.__version__.split(".")[:2])

DIALECT = "standard" if _NEWEST >= (1, 24) else "decomposed"
PRECISION = "fp32"
ENGINES = ("onnxruntime",)  # whose own operators may be used
# What loses nothing that can be heard and is fastest here: see bench/results.
AUTO = {
    "frontend": "fp32",
    "encoder": "int8",
    "bridge": "int8",
    "decoder": "int4",
    "table": "int8",
}
