"""Which operators TensorRT's ONNX parser takes, of which types, since which version.

Sources: docs/operators.md of onnx-tensorrt 9.2 and 10.15, and its docs/Changelog.md up to 10.15.
What neither states of a version is taken as not there: a lint that is too strict costs a question,
one that is too lax a build that ends after half an hour.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from alm.precision import Wanted
from alm.target import FLOATS, INTEGERS, Operator

Version = tuple[int, int]

NUMBERS = (*FLOATS, *INTEGERS)
ALL = (*NUMBERS, "bool")
# Weights stay in these until a DequantizeLinear makes numbers of them.
QUANTIZED = ("int8", "int4", "float8_e4m3fn")
PORTS = (*ALL, "uint8")

# The precisions of a target of any TensorRT.
PRECISION = Wanted(16)
BACKENDS = ("tensorrt",)
AUTO = {
    "frontend": Wanted(),
    "encoder": Wanted(16),
    "bridge": Wanted(16),
    "decoder": Wanted(4, head=8),
    "table": Wanted(16),
}
# And its graphs: the rest of its `Limits` is its version's.
COMMON: dict[str, Any] = {
    "quantized": QUANTIZED,
    "ports": PORTS,
    "profiles": True,
    "symmetric": True,
    "static_shapes": True,
}

_FLOAT = """
Acos Acosh Asin Asinh Atan Atanh AveragePool BatchNormalization Ceil Celu Conv ConvTranspose
Cos Cosh Dropout Einsum Elu Erf Exp Floor GRU Gemm GlobalAveragePool GlobalLpPool GlobalMaxPool
GridSample GroupNormalization HardSigmoid HardSwish Hardmax ImageScaler InstanceNormalization IsInf
LRN LSTM LeakyRelu Log LogSoftmax LpNormalization LpPool MatMul MeanVarianceNormalization
NonMaxSuppression NonZero PRelu ParametricSoftplus RNN RandomNormal RandomNormalLike RandomUniform
RandomUniformLike Reciprocal Resize RoiAlign Round ScaledTanh Selu Sigmoid Sin Sinh Softmax Softplus
Softsign Sqrt Tan Tanh ThresholdedRelu Upsample
""".split()
_NUMBER = """
Abs Add ArgMax ArgMin DepthToSpace Div Greater GreaterOrEqual IsNaN Less LessOrEqual Max Mean
Min Mod Mul Neg Pad Pow Relu Scatter ScatterElements ScatterND Shrink Sign SpaceToDepth Sub Sum
""".split()
_ALL = """
Concat Expand Flatten Gather GatherElements GatherND Identity ReverseSequence Reshape Shape Size
Slice Split Tile Transpose Trilu
""".split()
_BOOL = "And Not Or Xor".split()
_REDUCE = "L1 L2 LogSum LogSumExp Max Mean Min Prod Sum SumSquare".split()

_TABLE: dict[str, Operator] = {
    **dict.fromkeys(_FLOAT, Operator(FLOATS)),
    **dict.fromkeys(_NUMBER, Operator(NUMBERS)),
    **dict.fromkeys(_ALL, Operator(ALL)),
    **dict.fromkeys(_BOOL, Operator(("bool",))),
    **{f"Reduce{kind}": Operator(NUMBERS, constant=(1,)) for kind in _REDUCE},
    # Types of what comes out, or of several inputs: the graph's other nodes show them.
    **dict.fromkeys(
        "Cast CastLike Constant ConstantOfShape If Loop Range Scan".split(), Operator()
    ),
    "Attention": Operator(
        FLOATS,
        absent=(4, 5),
        outputs=1,
        ranks={0: 4, 1: 4, 2: 4, 3: 4},
        attributes={"softcap": 0.0, "qk_matmul_output_mode": 0, "softmax_precision": None},
        since=(10, 14),
    ),
    "BlackmanWindow": Operator(since=(10, 4)),
    "Clip": Operator(NUMBERS),  # operators.md says floats; its importer makes Max and Min of others
    "CumSum": Operator(FLOATS, constant=(1,)),
    "DeformConv": Operator(("float32", "float16"), since=(10, 1)),
    "DequantizeLinear": Operator(QUANTIZED),
    "Equal": Operator(ALL),  # operators.md leaves bool out; the importer's own check does not
    "EyeLike": Operator(ALL),
    "Gelu": Operator(NUMBERS, since=(10, 0)),  # opset 20, which 10.0 reads as the first
    "HammingWindow": Operator(since=(10, 4)),
    "HannWindow": Operator(since=(10, 4)),
    "LayerNormalization": Operator(FLOATS, outputs=1),
    "MaxPool": Operator(FLOATS, outputs=1),
    "Mish": Operator(("float32", "float16"), since=(10, 15)),
    "OneHot": Operator(constant=(1,)),
    "QuantizeLinear": Operator(FLOATS),
    "RMSNormalization": Operator(FLOATS, since=(10, 15)),
    "RotaryEmbedding": Operator(FLOATS, since=(10, 15)),
    "STFT": Operator(("float32",), constant=(1, 2), since=(10, 5)),
    "Squeeze": Operator(ALL, constant=(1,)),
    "Swish": Operator(FLOATS, since=(11, 0)),
    "TensorScatter": Operator(
        (*FLOATS, "int32"),
        ranks={0: 4, 1: 4},
        attributes={"axis": -2, "mode": "linear"},
        static=((0, 2),),
        since=(10, 15),
    ),
    "TopK": Operator(NUMBERS, attributes={"sorted": 1}),
    "Unsqueeze": Operator(ALL, constant=(1,)),
    "Where": Operator(ALL, data=1),
}

_SCALES = "NvInfer.h of TensorRT 10, IDequantizeLayer: scales are build-time constants"

# What a version lifted: before it the operator was as given here.
_BEFORE: tuple[tuple[Version, str, dict[str, Any]], ...] = (
    ((10, 4), "Pad", {"absent": (3,), "note": "Changelog.md of 10.4: tensor axes for Pad"}),
    ((11, 0), "DequantizeLinear", {"constant": (1, 2), "note": _SCALES}),
    ((11, 0), "QuantizeLinear", {"constant": (1, 2), "note": _SCALES}),
    ((10, 12), "Pow", {"types": FLOATS, "note": "Changelog.md of 10.12: integer bases for Pow"}),
)
# 4-bit floats and microscaled ones are newer, and no lever here makes them.


def operators(version: Version) -> dict[str, Operator]:
    """The operators that this version takes."""
    table = {name: op for name, op in _TABLE.items() if op.since <= version}
    for lifted, name, change in _BEFORE:
        if version < lifted and name in table:
            table[name] = replace(table[name], **change)
    return table
