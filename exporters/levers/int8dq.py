"""int8dq: 8 bits a weight in standard ONNX, for TensorRT and others that fuse it; float16 else.

Weights alone are rounded, one scale an output, so nothing is calibrated. It carries float16
itself: what is not in 8 bits is as `fp16` has it, because TensorRT multiplies in the type that
the weights come out in.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import onnx_ir as ir

from alm.precision import Codes, Storage, everywhere
from exporters import lazy
from exporters.levers import Embeds, _dequantized, fp16, int8
from exporters.matmuls import Once, products
from wrappers import Wrapper
from wrappers.layers import experts

STORED = Storage(
    Codes("int8", scale="float16"),
    computes=("float16",),
    operators=("DequantizeLinear",),
    bound=0.2,
)


@dataclass(frozen=True)
class Lever:
    """A quarter of the bytes; worst error about 1 % of the largest value."""

    bits: int = 8
    sensitive: tuple[str, ...] = ()  # words in the names of products that get 8 bits

    STORAGE = everywhere(STORED, decoder=replace(STORED, cache="float16"), table=int8.ROWS)
    LEAVES_ALONE = (
        "convolutions and the cache, which get float16; front ends, whose powers span more than "
        "that holds; attention's own products, which get float16 in the dialect standard; norms, "
        "softmax, activations, the residual stream and biases, routers, which stay float32"
    )

    def prepare(self, part: Wrapper, embeds: Embeds) -> None:
        """The KV cache is kept in float16; experts become plain products."""
        experts.without_operator(part)
        fp16.Lever().prepare(part, embeds)

    def bits_of(self, name: str, role: str) -> int:
        """Bits for the product of this name."""
        careful = role != "decoder" or any(word in name for word in self.sensitive)
        return 8 if careful else self.bits

    def rewrite(self, model: ir.Model, role: str) -> ir.Model:
        """Change the graph in place."""
        if role == "frontend":
            return model
        once = Once()
        for product in products(model.graph):
            if product.sizes[0] < int8.LEAST:
                continue
            scheme = _dequantized.scheme_of(product, self.bits_of(product.name, role))
            _dequantized.put(product, scheme, once)
        lazy.drop_unused(model.graph)
        return fp16.Lever().rewrite(model, role)
