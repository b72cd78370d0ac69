"""Weights in blocks of few bits, as ONNX Runtime's MatMulNBits stores them.

A row of W' [out, in] is cut into blocks along `in`; each block has a scale and, when asymmetric, a
zero point: w = (q - zero) * scale with q in 0 .. 2^bits - 1.

Codes for DequantizeLinear, which TensorRT reads, are the same with the zero point taken off: see
`signed`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import onnx_ir as ir
import torch
from torch import Tensor

from alm.precision import Codes, Storage
from exporters import lazy
from exporters.matmuls import CONTRIB, Product

PIECE = 2**18  # weights quantized at a time: their intermediates stay in a core's cache
SEARCH = (1.0, 0.95, 0.9, 0.85, 0.8)  # of the range of a block that is worth keeping
LEAST_SCALE = 2.0**-14  # float16 holds no smaller one exactly, and TensorRT wants none of zero


@dataclass(frozen=True)
class Scheme:
    """How a matrix is quantized."""

    bits: int
    block: int
    symmetric: bool = False
    search: bool = False  # for the clipping of each block that leaves the least squared error
    positive: bool = False  # symmetric, with scales above zero that float16 holds


def codes(scheme: Scheme) -> Codes:
    """What MatMulNBits stores in a scheme."""
    return Codes(f"uint{scheme.bits}", scheme.block, "float32", not scheme.symmetric)


def storage(scheme: Scheme, **more: Any) -> Storage:
    """A decoder whose products are all MatMulNBits."""
    return Storage(codes(scheme), operators=(f"{CONTRIB}::MatMulNBits",), **more)


class Quantized(NamedTuple):
    """One matrix, as MatMulNBits wants it."""

    packed: np.ndarray  # uint8 [out, blocks, block * bits / 8], the low nibble first
    scales: np.ndarray  # float32 [out, blocks]
    zeros: np.ndarray  # uint8 [out, ceil(blocks * bits / 8)], packed the same way


def quantize(matrix: Tensor, scheme: Scheme) -> Quantized:
    """Round W' [out, in], of any float dtype, to blocks of few bits."""
    rows = max(PIECE // matrix.shape[1], 1)
    pieces = [_quantize(matrix[at : at + rows], scheme) for at in range(0, len(matrix), rows)]
    return Quantized(*(np.concatenate(arrays) for arrays in zip(*pieces, strict=True)))


def _quantize(matrix: Tensor, scheme: Scheme) -> Quantized:
    return stored(*nearest(blocked(matrix.float(), scheme.block), scheme), scheme)


def nearest(blocks: Tensor, scheme: Scheme) -> tuple[Tensor, Tensor, Tensor]:
    """Codes of blocks [out, blocks, block], each the nearest; scale and zero point [.., .., 1]."""
    kept = SEARCH if scheme.search else (1.0,)
    best = _rounded(blocks, scheme, kept[0])
    if len(kept) > 1:
        least = _loss(blocks, *best)
        for share in kept[1:]:
            other = _rounded(blocks, scheme, share)
            loss = _loss(blocks, *other)
            better = loss < least
            best = tuple(torch.where(better, o, b) for o, b in zip(other, best, strict=True))
            least = torch.minimum(loss, least)
    q, scale, zero = best
    return q, scale, zero


def stored(q: Tensor, scale: Tensor, zero: Tensor, scheme: Scheme) -> Quantized:
    """What `nearest` gives, or other codes for the same scales, as MatMulNBits wants it."""
    packed = _pack(q.byte(), scheme.bits)
    return Quantized(
        packed.numpy(), scale[..., 0].numpy(), _pack(zero[..., 0].byte(), scheme.bits).numpy()
    )


def blocked(matrix: Tensor, block: int) -> Tensor:
    """[out, blocks, block], zeros behind the last column."""
    lacking = -matrix.shape[1] % block
    padded = torch.nn.functional.pad(matrix, (0, lacking))
    return padded.unflatten(1, (-1, block))


def _rounded(blocks: Tensor, scheme: Scheme, share: float) -> tuple[Tensor, Tensor, Tensor]:
    """q, scale and zero point of every block when `share` of its range is kept."""
    top = 2**scheme.bits - 1
    middle = float(2 ** (scheme.bits - 1))
    if scheme.positive:
        scale = share * blocks.abs().amax(-1, keepdim=True) / (middle - 1)
        scale = scale.clamp(min=LEAST_SCALE).half().float()  # codes are of the scale as stored
        zero = torch.full_like(scale, middle)
    elif scheme.symmetric:
        # The largest value gets the code -2^(bits-1), which has no positive twin.
        at = blocks.abs().argmax(-1, keepdim=True)
        scale = share * blocks.gather(-1, at) / -middle
        zero = torch.full_like(scale, middle)
    else:
        low = share * blocks.amin(-1, keepdim=True).clamp(max=0)
        high = share * blocks.amax(-1, keepdim=True).clamp(min=0)
        scale = (high - low) / top
        zero = (-low / scale.where(scale != 0, 1.0)).round().clamp(0, top)
    safe = scale.where(scale != 0, 1.0)
    q = (blocks / safe + zero).round().clamp(0, top)
    return q, scale, zero


def _loss(blocks: Tensor, q: Tensor, scale: Tensor, zero: Tensor) -> Tensor:
    return ((q - zero) * scale - blocks).square().sum(-1, keepdim=True)


def _pack(codes: Tensor, bits: int) -> Tensor:
    """Two codes of 4 bits in a byte along the last axis, the first in the low half."""
    if bits == 8:
        return codes
    codes = torch.nn.functional.pad(codes, (0, codes.shape[-1] % 2))
    return codes[..., 0::2] | (codes[..., 1::2] << 4)


def _unpack(packed: np.ndarray, bits: int) -> np.ndarray:
    """A code a byte along the last axis."""
    if bits == 8:
        return packed
    return np.stack((packed & 15, packed >> 4), -1).reshape(*packed.shape[:-1], -1)


def dequantize(quantized: Quantized, scheme: Scheme, columns: int) -> np.ndarray:
    """What the matrix has become, float32 [out, in]."""
    blocks = quantized.scales.shape[1]
    zero = _unpack(quantized.zeros, scheme.bits)[:, :blocks, None].astype(np.float32)
    codes = _unpack(quantized.packed, scheme.bits).astype(np.float32)
    values = (codes - zero) * quantized.scales[..., None]
    return values.reshape(len(values), -1)[:, :columns]


def signed(matrix: Tensor, scheme: Scheme) -> tuple[np.ndarray, np.ndarray]:
    """W [in, out] as int8 codes around zero, and float16 scales [blocks, out]; from W' [out, in].

    The scheme is a positive one whose block divides `in`.
    """
    quantized = quantize(matrix, scheme)
    codes = _unpack(quantized.packed, scheme.bits).reshape(len(quantized.packed), -1)
    codes = codes.astype(np.int16) - 2 ** (scheme.bits - 1)
    scales = quantized.scales.astype(np.float16)
    return np.ascontiguousarray(codes.T.astype(np.int8)), np.ascontiguousarray(scales.T)


def put(product: Product, scheme: Scheme, made: Callable[[], Quantized] | None = None) -> None:
    """MatMulNBits in the place of a product, its weight quantized when it is written.

    `made` gives the codes where they are not each the nearest.
    """
    graph: Any = product.node.graph
    rows, columns = product.sizes
    blocks = -(-rows // scheme.block)
    packed, scales, zeros = lazy.shared(made or (lambda: quantize(product.read(), scheme)), 3)
    code, float32 = ir.DataType.UINT8, ir.DataType.FLOAT
    width = scheme.block * scheme.bits // 8
    name = f"{product.name}.q{scheme.bits}"
    inputs: list[ir.Value | None] = [
        product.x,
        lazy.add(graph, name, (columns, blocks, width), packed, code),
        lazy.add(graph, f"{name}.scales", (columns, blocks), scales, float32),
    ]
    if not scheme.symmetric:
        shape = (columns, -(-blocks * scheme.bits // 8))
        inputs.append(lazy.add(graph, f"{name}.zeros", shape, zeros, code))
    if product.bias is not None:
        inputs += [None] * (5 - len(inputs)) + [product.bias]
    node = ir.node(
        "MatMulNBits",
        inputs,
        # Level 4 rounds the input to int8 per block as well: the others are 3 to 90 times slower.
        dict(bits=scheme.bits, block_size=scheme.block, K=rows, N=columns, accuracy_level=4),
        domain=CONTRIB,
    )
    product.replace([node], node.outputs[0], bias_is_in=True)
