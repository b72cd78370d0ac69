"""int8: a quarter of the bytes; integer products where there are many rows, weights alone else.

An encoder's products have hundreds of rows: inputs are rounded to 8 bits on the way and multiplied
as integers, which is twice as fast as float32. A decoder makes one row at a time and waits for its
weights alone: they are 8 bits in blocks of 128.

x86 processors without VNNI add the products of two neighbours along the inputs in 16 bits, in ONNX
Runtime and others: uint8 times int8 is fast there, and cut where 255 (a + b) is not below 2^15. Of
uint8 weights ONNX Runtime adds in 32 bits, but takes 1.3 times as long, and ten times as long where
there is AMX. So the scale of an output is such that no two neighbours add up to more than 128. Of
normal weights the codes then go to 95 instead of 127, and of those with longer tails nearly as far.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
import torch
from torch import Tensor

from alm.precision import Codes, Storage, everywhere
from exporters import lazy
from exporters.levers import Embeds, _experts, _nbits
from exporters.matmuls import CONTRIB, Once, Product, cast, products
from wrappers import Wrapper

SCHEME = _nbits.Scheme(bits=8, block=128)
LEAST = 32  # inputs: narrower products are not worth two more nodes
MOST, PAIR = 127, 128  # a code, and two neighbours: 255 x 128 is less than 2^15
BACKENDS = ("onnxruntime",)  # others know the operators of neither, or not as fast ones
INTEGERS = Storage(
    Codes("int8", scale="float32"),
    operators=("DynamicQuantizeLinear", "MatMulInteger"),
    backends=BACKENDS,
    bound=0.2,
)
ROWS = Storage(Codes("int8", scale="float32"), bound=0.2)  # of the embedding table


@dataclass(frozen=True)
class Lever:
    """Symmetric, one scale an output, in encoders and bridges; blocks of 128 in decoders."""

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
                _integers(product, once)
        if role == "decoder":
            _experts.quantize(model.graph, SCHEME)
        lazy.drop_unused(model.graph)
        return model


def _integers(product: Product, once: Once) -> None:
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
    name = f"{product.name}.int8"
    codes, factors = lazy.shared(lambda: rounded(product.read()), 2)
    weight = lazy.add(graph, name, (rows, columns), codes, ir.DataType.INT8)
    scales = lazy.add(graph, f"{name}.scales", (columns,), factors)
    sums = ir.node("MatMulInteger", [x, weight, zero])
    sums.outputs[0].dtype = ir.DataType.INT32
    exact = cast(sums.outputs[0], ir.DataType.FLOAT)
    factor = ir.node("Mul", [scale, scales])
    scaled = ir.node("Mul", [exact.outputs[0], factor.outputs[0]])
    for node in (factor, scaled):
        node.outputs[0].dtype = ir.DataType.FLOAT
    product.replace([sums, exact, factor, scaled], scaled.outputs[0])


_QUANTIZED = (ir.DataType.UINT8, ir.DataType.FLOAT, ir.DataType.UINT8)


def rounded(matrix: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """W [in, out] in codes, and the scale of each output; from W' [out, in].

    Codes are from -127 to 127, and 2k and 2k + 1 of an output add up to 128 at most.
    """
    pairs = _nbits.blocked(matrix.float(), 2)
    most = torch.maximum(pairs.abs().amax((1, 2)) / MOST, pairs.sum(2).abs().amax(1) / PAIR)
    scales = most.where(most > 0, 1.0)
    exact = pairs / scales[:, None, None]
    codes = exact.round()
    sums = codes.sum(2)
    # Rounding can take a sum beyond: the one that went further outwards goes back by one.
    sign = sums.sign() * (sums.abs() > PAIR)
    outwards = (codes - exact) * sign[..., None]
    codes.scatter_add_(2, outwards.argmax(2, keepdim=True), -sign[..., None])
    codes = codes.flatten(1)[:, : matrix.shape[1]].T.contiguous()
    return codes.numpy().astype(np.int8), scales.numpy()
