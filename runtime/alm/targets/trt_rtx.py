"""TensorRT-RTX 1.7: PCs with an RTX card; it reads graphs by TensorRT 11's rules.

It builds without a GPU, so it also tells on any machine whether its parser takes a graph.
"""

from __future__ import annotations

from dataclasses import replace

from alm.target import FLOATS, Build, Limits, Operator
from alm.tensorrt import operators

DIALECT = "standard"
PRECISION, BACKENDS, AUTO = operators.PRECISION, operators.BACKENDS, operators.AUTO
# Tried with 1.7.1: queries of three axes, and three operators of ONNX Runtime's.
_TABLE = operators.operators((11, 0))
_TRIED: dict[str, Operator] = {
    "Attention": replace(_TABLE["Attention"], ranks=None),
    "SimplifiedLayerNormalization": Operator(FLOATS),
    "com.microsoft::RotaryEmbedding": Operator(FLOATS),
    "com.microsoft::SkipSimplifiedLayerNormalization": Operator(FLOATS),
}
LIMITS = Limits(
    backend="TensorRT-RTX 1.7",
    source="onnx-tensorrt 10.15 docs/operators.md, and what 1.7.1 parsed and built",
    opsets=(9, 25),
    operators=_TABLE | _TRIED,
    fused_attention=True,
    **operators.COMMON,
)
BUILD = Build(package="tensorrt_rtx", version="1.7", where="anywhere")
