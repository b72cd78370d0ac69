"""The ONNX Runtime that is installed here, on any processor, or its CUDA provider."""

from __future__ import annotations

import onnxruntime

# Opset 24 came with 1.24, which there is not for Python 3.10: what is compared here must run here.
_NEWEST = tuple(int(n) for n in onnxruntime.__version__.split(".")[:2])

DIALECT = "standard" if _NEWEST >= (1, 24) else "decomposed"
PRECISION = "fp32"
