"""TensorRT 10.16 of JetPack 7.2: Jetson Thor and Orin, with Attention and a cache in place."""

from __future__ import annotations

from alm.target import Build, Limits
from alm.tensorrt import operators

DIALECT = "standard"
PRECISION, BACKENDS, AUTO = operators.PRECISION, operators.BACKENDS, operators.AUTO
LIMITS = Limits(
    backend="TensorRT 10.16",
    source="onnx-tensorrt 10.15 docs/operators.md",
    opsets=(9, 24),
    operators=operators.operators((10, 16)),
    fused_attention=True,
    **operators.COMMON,
)
BUILD = Build(package="tensorrt", version="10.16", where="device")
