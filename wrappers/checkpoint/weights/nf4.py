"""bitsandbytes' 4-bit weights, NF4 or FP4, as plain ones: each is dequantized when it is read.

A file of such a model holds for a matrix `X`: its values, two to a byte and the first one above, as
`X` itself; `X.absmax`, one scale for every `blocksize` values; `X.quant_map`, the 16 values; and
`X.quant_state.bitsandbytes__nf4`, JSON in bytes. After double quantization `absmax` is bytes too,
with `X.nested_absmax`, `X.nested_quant_map` and an offset in the JSON. The layout is that of
`QuantState.as_dict(packed=True)` and the arithmetic that of `dequantize_4bit`, both in
bitsandbytes/functional.py. Blocks run over the flattened matrix, across the ends of its rows.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from alm.errors import BadCheckpoint
from wrappers.checkpoint.weights.tensors import Weights

NF4 = (
    *(-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453),
    *(-0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0),
    *(0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224),
    *(0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0),
)
FP4_BY_12 = (0.0, 0.0625, 8.0, 12.0, 4.0, 6.0, 2.0, 3.0)  # the other 8 are what they are below 0
FP4 = tuple(sign * value / 12 + 0.0 for sign in (1, -1) for value in FP4_BY_12)  # and no -0.0

# bitsandbytes computes with the values of the type, whatever quant_map says; so do we.
CODES = {"nf4": NF4, "fp4": FP4}
DTYPES = {str(d).removeprefix("torch."): d for d in (torch.float16, torch.bfloat16, torch.float32)}
BLOCKSIZES = (32, 64, 128, 256, 512, 1024, 2048, 4096)

STATE = ".quant_state.bitsandbytes__"
PIECES = (".absmax", ".quant_map", ".nested_absmax", ".nested_quant_map")
MOST_STATE = 1 << 16  # bytes of JSON; real ones have some 200
CHUNK = 1 << 22  # values dequantized at a time: 50 MB of intermediates


@dataclass(frozen=True)
class State:
    """How a weight is quantized, from the JSON beside it."""

    kind: str  # nf4 or fp4
    shape: tuple[int, ...]
    dtype: torch.dtype
    blocksize: int
    nested_blocksize: int  # of the scales' own scales; 0: the scales are plain
    offset: float  # added to the scales after theirs

    @property
    def count(self) -> int:
        return math.prod(self.shape)

    @property
    def blocks(self) -> int:
        return -(-self.count // self.blocksize)


def dequantized(weights: Weights) -> Weights:
    """The same weights, those of 4 bits under their plain names with their true shapes.

    They come in the dtype that the model had before; the few bytes of JSON are read at once, and
    nothing else. Weights that are not quantized pass through.

    Raises:
        BadCheckpoint: naming the first weight that lacks a piece or has one that does not fit. A
            piece of a wrong dtype is found when the weight is read.
    """
    plain = Weights(weights.where)
    groups = {_owner(name) for name in weights.shapes} - {""}
    for name in weights.shapes:
        if not _owner(name) and name not in groups:
            plain.add(name, weights.shapes[name], lambda name=name: weights[name])
    for name in sorted(groups):
        try:
            state = _state(weights, name)
            _check_pieces(weights.shapes, name, state)
        except ValueError as error:
            raise BadCheckpoint(f"{weights.where}: the 4-bit weight {name} {error}") from error
        read = lambda name=name, state=state: _read(weights, name, state)  # noqa: E731
        plain.add(name, state.shape, read)
    return plain


def described(config: object) -> bool:
    """Whether a config.json's `quantization_config` is of weights that are read here."""
    if not isinstance(config, dict) or config.get("load_in_8bit"):
        return False
    return config.get("quant_method") == "bitsandbytes" and config.get("load_in_4bit") is True


def kinds(weights: Weights) -> dict[str, int]:
    """How many weights there are of each type, for messages: {"NF4": 224}."""
    names = [name.partition(STATE)[2].upper() for name in weights.shapes if STATE in name]
    return {kind: names.count(kind) for kind in sorted(set(names))}


def _owner(name: str) -> str:
    """model...q_proj.weight.absmax -> model...q_proj.weight; "" for what is no such piece."""
    if STATE in name:
        return name.partition(STATE)[0]
    return next((name.removesuffix(p) for p in PIECES if name.endswith(".weight" + p)), "")


def _state(weights: Weights, name: str) -> State:
    """The JSON beside a weight.

    Raises:
        ValueError: the rest of a sentence about the weight.
    """
    states = [n for n in weights.shapes if n.startswith(name + STATE)]
    if len(states) != 1:
        raise ValueError(f"needs one {STATE[1:]}nf4 or ...fp4 beside it; there are {len(states)}")
    if math.prod(weights.shapes[states[0]]) > MOST_STATE:
        raise ValueError(f"has a quant_state of more than {MOST_STATE} bytes")
    packed = weights[states[0]]
    if packed.dtype != torch.uint8:
        raise ValueError(f"has a quant_state of {packed.dtype} and not of bytes")
    try:
        fields = json.loads(bytes(packed.flatten().tolist()))
    except (ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"has a quant_state that is not JSON: {reason}") from error
    if not isinstance(fields, dict):
        raise ValueError("has a quant_state that is no JSON object")
    return _parsed(fields, states[0].partition(STATE)[2], nested=f"{name}.nested_absmax" in weights)


def _parsed(fields: dict[str, Any], kind: str, nested: bool) -> State:
    def valid(key: str, good: bool, want: str) -> Any:
        if not good:
            raise ValueError(f"says {key}: {str(fields.get(key))[:40]!r}; it must be {want}")
        return fields[key]

    shape, offset = fields.get("shape"), fields.get("nested_offset", 0.0 if not nested else None)
    sizes = isinstance(shape, list) and shape and all(type(s) is int and s > 0 for s in shape)
    valid("shape", bool(sizes), "a list of sizes above zero")
    known = kind in CODES and fields.get("quant_type") == kind
    valid("quant_type", known, f"{' or '.join(CODES)}, as the name of the quant_state says")
    dtype = valid("dtype", fields.get("dtype") in list(DTYPES), f"one of {', '.join(DTYPES)}")
    if nested:
        # Always 256 and float32, which bitsandbytes leaves no choice about.
        inner = fields.get("nested_blocksize")
        valid("nested_blocksize", type(inner) is int and inner > 0, "a number above zero")
        valid("nested_dtype", fields.get("nested_dtype") == "float32", "float32")
        good = type(offset) in (int, float) and math.isfinite(offset)
        valid("nested_offset", good, "a finite number")
    elif "nested_blocksize" in fields:
        raise ValueError("says nested_blocksize, but there is no nested_absmax beside it")
    size = fields.get("blocksize")
    return State(
        kind=kind,
        shape=tuple(fields["shape"]),
        dtype=DTYPES[dtype],
        blocksize=valid(
            "blocksize",
            type(size) is int and size in BLOCKSIZES,
            f"one of {', '.join(map(str, BLOCKSIZES))}",
        ),
        nested_blocksize=fields["nested_blocksize"] if nested else 0,
        offset=float(fields["nested_offset"]) if nested else 0.0,
    )


def _check_pieces(shapes: dict[str, tuple[int, ...]], name: str, state: State) -> None:
    """All pieces are there and as long as the state says; ValueError as `_state`."""
    # Storage in a wider dtype (bnb_4bit_quant_storage) holds the same bytes in fewer items.
    total = (state.count + 1) // 2
    stored = [(total // size, 1) for size in (1, 2, 4) if total % size == 0]
    wanted: dict[str, list[tuple[int, ...]]] = {"": stored, ".absmax": [(state.blocks,)]}
    wanted[".quant_map"] = [(16,)]
    if state.nested_blocksize:
        wanted[".nested_absmax"] = [(-(-state.blocks // state.nested_blocksize),)]
        wanted[".nested_quant_map"] = [(256,)]
    for piece, fitting in wanted.items():
        what = f"{name.rpartition('.')[2]}{piece}"
        shape = shapes.get(name + piece)
        if shape is None:
            raise ValueError(f"lacks its {what}")
        if shape not in fitting:
            raise ValueError(
                f"of shape {list(state.shape)} has a {what} of {list(shape)} and not "
                f"{list(fitting[0])}"
            )


@torch.no_grad()
def _read(weights: Weights, name: str, state: State) -> Tensor:
    """The weight as bitsandbytes dequantizes it: float32 products, rounded once to its dtype."""

    def piece(suffix: str, *dtypes: torch.dtype) -> Tensor:
        tensor = weights[name + suffix]
        if tensor.dtype not in dtypes:
            raise BadCheckpoint(
                f"{weights.where}: {name}{suffix} is of {tensor.dtype} and not of {dtypes[0]}"
            )
        return tensor.contiguous()

    floats = (torch.float32, torch.float16, torch.bfloat16)
    storage = weights[name].contiguous().view(torch.uint8).flatten()
    if len(storage) != (state.count + 1) // 2:
        raise BadCheckpoint(
            f"{weights.where}: the 4-bit weight {name} has {len(storage)} bytes and not "
            f"{(state.count + 1) // 2}"
        )
    if state.nested_blocksize:
        code = piece(".nested_quant_map", *floats).float()
        scales = code[piece(".absmax", torch.uint8).int()]
        outer = piece(".nested_absmax", *floats).float()
        scales *= outer.repeat_interleave(state.nested_blocksize)[: state.blocks]
        scales += torch.tensor(state.offset)
    else:
        scales = piece(".absmax", *floats).float()
    return _expanded(storage, scales, state)


def _expanded(packed: Tensor, scales: Tensor, state: State) -> Tensor:
    """Bytes [count / 2] and scales [blocks] -> the weight in its shape and dtype, part by part."""
    code = torch.tensor(CODES[state.kind])
    # Both values of each byte at once: a table of 256 pairs, the upper half first.
    pairs = torch.stack((code.repeat_interleave(16), code.repeat(16)), 1)
    weight = torch.empty(state.count, dtype=state.dtype)
    for at in range(0, state.count, CHUNK):
        part = weight[at : at + CHUNK]
        # As int: a tensor of bytes would be a mask and not an index.
        index = packed[at // 2 : (at + CHUNK) // 2].int()
        values = pairs.index_select(0, index).flatten()[: len(part)]
        blocks = scales[at // state.blocksize : (at + CHUNK) // state.blocksize]
        part.copy_(values.mul_(blocks.repeat_interleave(state.blocksize)[: len(part)]))
    return weight.view(state.shape)
