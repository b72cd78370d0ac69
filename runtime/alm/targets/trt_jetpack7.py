"""TensorRT 10.16 of JetPack 7.2: Jetson Thor and Orin, with Attention and a cache in place."""

from __future__ import annotations

from alm.targets import _tensorrt
from alm.targets._data import Build, Limits

DIALECT = "standard"
PRECISION = "fp16"
PRECISIONS = ("fp32", "fp16", "bf16", "int8dq", "int4dq")
ENGINES = ("tensorrt",)
AUTO = {
    "frontend": "fp32",
    "encoder": "fp16",
    "bridge": "fp16",
    "decoder": "int4dq",
    "table": "fp16",
}
LIMITS = Limits(
    engine="TensorRT 10.16",
    source="onnx-tensorrt 10.15 docs/operators.md",
    opsets=(9, 24),
    operators=_tensorrt.operators((10, 16)),
    quantized=_tensorrt.QUANTIZED,
    ports=_tensorrt.PORTS,
    profiles=True,
    symmetric=True,
    static_shapes=True,
    fused_attention=True,
)
BUILD = Build(package="tensorrt", version="10.16", where="device")
