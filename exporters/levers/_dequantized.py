"""Weights of few bits behind DequantizeLinear: standard ONNX, which TensorRT keeps in few bits.

W [in, out] is stored as codes and one scale a block of `in` (int4) or an output (int8), and comes
out in float16: y = x DequantizeLinear(codes, scales). What TensorRT wants of it, and refuses
otherwise: symmetric, scales above zero, int4 and not uint4, and for every node a scale tensor of
its own.
"""

from __future__ import annotations

import ml_dtypes
import numpy as np
import onnx_ir as ir
from torch import Tensor

from exporters import lazy
from exporters.levers import _nbits
from exporters.matmuls import Once, Product, cast

HALF, FLOAT = ir.DataType.FLOAT16, ir.DataType.FLOAT
BLOCKS = (128, 64, 32, 16)  # that TensorRT takes; the largest that divides the inputs is taken
OPSET = 21  # the first that knows blocks and int4


def scheme_of(product: Product, bits: int) -> _nbits.Scheme:
    """4 bits in blocks where a block divides the inputs, else 8 bits and one scale an output."""
    rows, columns = product.sizes
    block = next((block for block in BLOCKS if rows % block == 0), 0)
    if bits == 4 and block and columns % 2 == 0:  # two codes share a byte
        return _nbits.Scheme(4, block, symmetric=True, search=True, positive=True)
    return _nbits.Scheme(8, rows, symmetric=True, positive=True)


def put(product: Product, scheme: _nbits.Scheme, once: Once) -> None:
    """A float16 product with a dequantized weight in the place of a float32 one."""
    graph = product.node.graph
    assert isinstance(graph, ir.Graph)
    rows, columns = product.sizes
    (x,) = once.of(product) or once.of(product, [cast(product.x, HALF)])
    codes, scales = lazy.shared(lambda: _stored(product.read(), scheme), 2)
    name = f"{product.name}.int{scheme.bits}"
    blocked = scheme.bits == 4
    held = ir.DataType.INT4 if blocked else ir.DataType.INT8
    shape = (rows // scheme.block, columns) if blocked else (columns,)
    wide = ir.node(
        "DequantizeLinear",
        [
            lazy.add(graph, name, (rows, columns), codes, held),
            lazy.add(graph, f"{name}.scales", shape, scales, HALF),
        ],
        {"axis": 0, "block_size": scheme.block} if blocked else {"axis": 1},
    )
    wide.outputs[0].dtype, wide.outputs[0].shape = HALF, ir.Shape((rows, columns))
    y = ir.node("MatMul", [x.outputs[0], wide.outputs[0]])
    y.outputs[0].dtype = HALF
    back = cast(y.outputs[0], FLOAT)
    product.replace([wide, y, back], back.outputs[0])


def _stored(matrix: Tensor, scheme: _nbits.Scheme) -> tuple[np.ndarray, np.ndarray]:
    """Codes [in, out] and scales, as they are written."""
    codes, scales = _nbits.signed(matrix, scheme)
    if scheme.bits == 4:
        return codes.astype(ml_dtypes.int4), scales
    return codes, scales[0]
