"""TensorRT-RTX 1.7: PCs with an RTX card; it reads graphs by TensorRT 11's rules.

It builds without a GPU, so it also tells on any machine whether its parser takes a graph.
"""

from __future__ import annotations

from dataclasses import replace

from alm.targets import _tensorrt
from alm.targets._data import FLOATS, Build, Limits, Operator

DIALECT = "standard"
PRECISION, PRECISIONS = _tensorrt.PRECISION, _tensorrt.PRECISIONS
ENGINES, AUTO = _tensorrt.ENGINES, _tensorrt.AUTO
# Tried with 1.7.1: queries of three axes, and three operators of ONNX Runtime's.
_TABLE = _tensorrt.operators((11, 0))
_TRIED: dict[str, Operator] = {
    "Attention": replace(_TABLE["Attention"], ranks=None),
    "SimplifiedLayerNormalization": Operator(FLOATS),
    "com.microsoft::RotaryEmbedding": Operator(FLOATS),
    "com.microsoft::SkipSimplifiedLayerNormalization": Operator(FLOATS),
}
LIMITS = Limits(
    engine="TensorRT-RTX 1.7",
    source="onnx-tensorrt 10.15 docs/operators.md, and what 1.7.1 parsed and built",
    opsets=(9, 25),
    operators=_TABLE | _TRIED,
    fused_attention=True,
    **_tensorrt.COMMON,
)
BUILD = Build(package="tensorrt_rtx", version="1.7", where="anywhere")
