"""TensorRT 10.16 of JetPack 7.2: Jetson Thor and Orin, with Attention and a cache in place."""

from __future__ import annotations

from alm.targets import _tensorrt
from alm.targets._data import Build, Limits

DIALECT = "standard"
PRECISION, PRECISIONS = _tensorrt.PRECISION, _tensorrt.PRECISIONS
ENGINES, AUTO = _tensorrt.ENGINES, _tensorrt.AUTO
LIMITS = Limits(
    engine="TensorRT 10.16",
    source="onnx-tensorrt 10.15 docs/operators.md",
    opsets=(9, 24),
    operators=_tensorrt.operators((10, 16)),
    fused_attention=True,
    **_tensorrt.COMMON,
)
BUILD = Build(package="tensorrt", version="10.16", where="device")
