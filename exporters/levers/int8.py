"""int8: a quarter of the bytes; integer products where there are many rows, weights alone else.

An encoder's products have hundreds of rows: inputs are rounded to 8 bits on the way and multiplied
as integers, which is twice as fast as float32. A decoder makes one row at a time and waits for its
weights alone: they are 8 bits in blocks of 128.

Weights of integer products are uint8 around 128, not int8: on x86 processors without VNNI, ONNX
Runtime adds pairs of uint8 times int8 in 16 bits, which overflow to a fifth of the largest output.
Of uint8 times uint8 it adds in 32 bits everywhere: exact, and as fast where there is VNNI.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir
from torch import Tensor

from alm.precision import Codes, Storage, everywhere
from exporters import lazy
from exporters.levers import Embeds, _experts, _nbits
from exporters.matmuls import CONTRIB, Once, Product, cast, products
from wrappers import Wrapper

SCHEME = _nbits.Scheme(bits=8, block=128)
LEAST = 32  # inputs: narrower products are not worth two more nodes
BACKENDS = ("onnxruntime",)  # others know the operators of neither, or not as fast ones
INTEGERS = Storage(
    Codes("uint8", scale="float32"),
    operators=("DynamicQuantizeLinear", "MatMulInteger"),
    backends=BACKENDS,
    bound=0.2,
)
ROWS = Storage(Codes("int8", scale="float32"), bound=0.2)  # of the embedding table


@dataclass(frozen=True)
class Weights:
    """How the weights of integer products are stored."""

    name: str
    dtype: ir.DataType
    zero: int  # the code that means 0
    top: int  # how far a code is from it at most


@dataclass(frozen=True)
class Lever:
    """Symmetric, one scale an output, in encoders and bridges; blocks of 128 in decoders."""

    WEIGHTS: ClassVar[Weights] = Weights("int8", ir.DataType.UINT8, zero=128, top=127)
    STORAGE = everywhere(
        INTEGERS, decoder=_nbits.storage(SCHEME, backends=BACKENDS, bound=0.2), table=ROWS
    )
    LEAVES_ALONE = (
        "front ends, whose powers span more than 8 bits hold; convolutions, for which integer "
        "kernels are slower here; attention's own products, which have no constant side; norms; "
        "routers of experts"
    )

    def prepare(self, part: Wrapper, embeds: Embeds) -> None:
        """Nothing."""

    def rewrite(self, model: ir.Model, role: str) -> ir.Model:
        """Change the graph in place."""
        if role == "frontend":
            return model
        once = Once()
        for product in products(model.graph):
            if product.sizes[0] < LEAST:
                continue
            if role == "decoder":
                _nbits.put(product, SCHEME)
                model.opset_imports[CONTRIB] = 1
            else:
                _integers(product, once, self.WEIGHTS)
        if role == "decoder":
            _experts.quantize(model.graph, SCHEME)
        lazy.drop_unused(model.graph)
        return model


def _integers(product: Product, once: Once, how: Weights) -> None:
    """DynamicQuantizeLinear and MatMulInteger: standard operators, fused when they are loaded."""
    graph = product.node.graph
    assert isinstance(graph, ir.Graph)
    nodes = once.of(product)
    if not nodes:
        nodes = once.of(product, [ir.node("DynamicQuantizeLinear", [product.x], num_outputs=3)])
        for value, dtype in zip(nodes[0].outputs, _QUANTIZED, strict=True):
            value.dtype = dtype
    x, scale, zero = nodes[0].outputs
    rows, columns = product.sizes
    name = f"{product.name}.{how.name}"
    codes, factors = lazy.shared(lambda: _rounded(product.read(), how), 2)
    weight = lazy.add(graph, name, (rows, columns), codes, how.dtype)
    scales = lazy.add(graph, f"{name}.scales", (columns,), factors)
    zero_point = np.array(how.zero, how.dtype.numpy())
    middle = lazy.add(graph, f"{how.name}.zero", (), lambda: zero_point, how.dtype)
    sums = ir.node("MatMulInteger", [x, weight, zero, middle])
    sums.outputs[0].dtype = ir.DataType.INT32
    exact = cast(sums.outputs[0], ir.DataType.FLOAT)
    factor = ir.node("Mul", [scale, scales])
    scaled = ir.node("Mul", [exact.outputs[0], factor.outputs[0]])
    for node in (factor, scaled):
        node.outputs[0].dtype = ir.DataType.FLOAT
    product.replace([sums, exact, factor, scaled], scaled.outputs[0])


_QUANTIZED = (ir.DataType.UINT8, ir.DataType.FLOAT, ir.DataType.UINT8)


def _rounded(matrix: Tensor, how: Weights) -> tuple[np.ndarray, np.ndarray]:
    """W [in, out] in codes, and the scale of each output; from W' [out, in]."""
    matrix = matrix.float()
    scales = matrix.abs().amax(1) / how.top
    scales = scales.where(scales > 0, 1.0)
    codes = (matrix / scales[:, None]).round() + how.zero
    return codes.T.contiguous().numpy().astype(how.dtype.numpy()), scales.numpy()
