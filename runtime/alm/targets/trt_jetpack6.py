"""TensorRT 10.3 of JetPack 6.2: Jetson Orin. It predates all operators made for LLMs."""

from __future__ import annotations

from alm.target import Build, Limits
from alm.tensorrt import operators

DIALECT = "decomposed"
PRECISION, BACKENDS, AUTO = operators.PRECISION, operators.BACKENDS, operators.AUTO
LIMITS = Limits(
    backend="TensorRT 10.3",
    source="onnx-tensorrt 9.2 docs/operators.md and docs/Changelog.md to 10.3",
    opsets=(9, 20),
    blocks_opset=21,  # of ONNX 1.16, which 10.3 is built with: int4 and block_size
    operators=operators.operators((10, 3)),
    **operators.COMMON,
)
BUILD = Build(package="tensorrt", version="10.3", where="device")
