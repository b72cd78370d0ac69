"""A processor for networks that knows ONNX's own operators up to opset 20, and no Softmax."""

from __future__ import annotations

from alm.precision import Wanted
from alm.target import Limits

DIALECT = "decomposed"
PRECISION = Wanted(16)
BACKENDS = ()
AUTO = dict.fromkeys(("encoder", "bridge", "decoder", "table"), Wanted(16))
AUTO |= {"frontend": Wanted()}
LIMITS = Limits(
    backend="Small NPU 1.0",
    source="its data sheet",
    opsets=(13, 20),
    ports=("float32", "float16", "int64"),
)
BUILD = None
