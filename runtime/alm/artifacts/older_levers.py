"""What the levers of older exports stored, for manifests that name a lever and nothing else.

The only place outside a lever's own file that knows levers by name. Nothing is added here: exports
write `storage` and `levers` themselves.
"""

from __future__ import annotations

from dataclasses import replace

from alm.precision import PLAIN, PLAINEST, Codes, Storage, everywhere, joined

_HALF = Storage(Codes("float16"), computes=("float16",), bound=1e-2)
_ROWS = Storage(Codes("int8", scale="float32"), bound=0.2)  # of the embedding table
_ORT = ("onnxruntime",)
_NBITS = ("com.microsoft::MatMulNBits",)
_IN_8 = Codes("uint8", 128, "float32", zero_point=True)
_INTEGERS = Storage(
    Codes("uint8", scale="float32"),
    operators=("DynamicQuantizeLinear", "MatMulInteger"),
    backends=_ORT,
    bound=0.2,
)
_BLOCKS_8 = Storage(_IN_8, operators=_NBITS, backends=_ORT, bound=0.2)
_BLOCKS_4 = replace(_BLOCKS_8, layers=Codes("uint4", 256, "float32", zero_point=True), bound=1.4)
_MIXED = replace(_BLOCKS_8, layers=Codes("uint4", 32, "float32", zero_point=True), bound=1.4)
_DQ = Storage(
    Codes("int8", scale="float16"),
    computes=("float16",),
    operators=("DequantizeLinear",),
    bound=0.2,
)
_DQ_4 = replace(
    _DQ,
    layers=Codes("int4", 128, "float16"),
    head=_DQ.layers,
    cache="float16",
    opset=21,
    bound=1.4,
)
_TABLE = {"table": _ROWS}

LEVERS: dict[str, dict[str, Storage]] = {
    "bf16": everywhere(Storage(Codes("bfloat16"), bound=0.1), table=Storage(bound=0.1)),
    "fp16": everywhere(_HALF, decoder=replace(_HALF, cache="float16")),
    "int4": everywhere(_INTEGERS, decoder=_BLOCKS_4, **_TABLE),
    "int4dq": everywhere(_DQ, decoder=_DQ_4, **_TABLE),
    "int4head8": everywhere(_INTEGERS, decoder=replace(_BLOCKS_4, head=_IN_8), **_TABLE),
    "int4mixed": everywhere(
        _INTEGERS, decoder=replace(_MIXED, head=_IN_8, as_head=("down_proj",)), **_TABLE
    ),
    "int8": everywhere(_INTEGERS, decoder=_BLOCKS_8, **_TABLE),
    "int8dq": everywhere(_DQ, decoder=replace(_DQ, cache="float16"), **_TABLE),
    "kv8": {"decoder": Storage(cache="int8", backends=_ORT, bound=0.5)},
}


def storage(precision: str, role: str) -> Storage:
    """How a part of this role is stored in a precision; a name that is not here changes nothing."""
    names = precision.split("+") if precision not in ("", PLAIN) else []
    return joined(LEVERS.get(name, {}).get(role, PLAINEST) for name in names)
