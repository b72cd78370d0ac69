"""int4: an eighth of the bytes, for decoders; `lm_head` and what else is sensitive in int8.

Blocks of 128 with a zero point, clipped where that loses least. On two cores smaller blocks cost a
third of the speed (block 32: 110 against 166 GFLOP/s for one row) and a fifth more bytes.
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from exporters import lazy
from exporters.levers import Embeds, _nbits, int8
from exporters.products import CONTRIB, products
from wrappers import Wrapper

SCHEME = _nbits.Scheme(bits=4, block=128, search=True)


@dataclass(frozen=True)
class Lever:
    """4 bits in a decoder's layers, 8 in its head; other parts as `int8` has them."""

    scheme: _nbits.Scheme = SCHEME
    head: _nbits.Scheme = int8.SCHEME
    sensitive: tuple[str, ...] = ("lm_head",)

    TABLE = "int8"
    ENGINE = "onnxruntime"
    LOSS = 1.0
    LEAVES_ALONE = (
        "lm_head, which decides the token and gets 8 bits; encoders and bridges, where 4 bits "
        "cost words and gain no time and which get int8; front ends, norms, attention's products"
    )

    def prepare(self, part: Wrapper, embeds: Embeds) -> None:
        """Nothing."""

    def rewrite(self, model: ir.Model, role: str) -> ir.Model:
        """Change the graph in place."""
        if role != "decoder":
            return int8.Lever().rewrite(model, role)
        for product in products(model.graph):
            if product.sizes[0] < int8.LEAST:
                continue
            careful = any(word in product.name for word in self.sensitive)
            _nbits.put(product, self.head if careful else self.scheme)
        model.opset_imports[CONTRIB] = 1
        lazy.drop_unused(model.graph)
        return model
