"""Any runtime that knows opset 20: older ONNX Runtimes, TensorRT 10.3, converters."""

from __future__ import annotations

from alm.target import Limits

DIALECT = "decomposed"
PRECISION = "fp32"
PRECISIONS = {}
ENGINES = ()  # whose own operators may be used
AUTO = {
    "frontend": "fp32",
    "encoder": "fp16",
    "bridge": "fp16",
    "decoder": "fp16",
    "table": "fp16",
}
LIMITS = Limits(engine="any runtime", source="ONNX 1.15, which opset 20 is of", opsets=(7, 20))
BUILD = None
