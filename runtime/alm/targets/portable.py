"""Any runtime that knows opset 20: older ONNX Runtimes, TensorRT 10.3, converters."""

from __future__ import annotations

from alm.precision import Wanted
from alm.target import Limits

DIALECT = "decomposed"
PRECISION = Wanted()
BACKENDS = ()  # whose own operators may be used
AUTO = {
    "frontend": Wanted(),
    "encoder": Wanted(16),
    "bridge": Wanted(16),
    "decoder": Wanted(16),
    "table": Wanted(16),
}
LIMITS = Limits(backend="any runtime", source="ONNX 1.15, which opset 20 is of", opsets=(7, 20))
BUILD = None
