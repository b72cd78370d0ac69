"""int4: an eighth of the bytes, for decoders, and the fewest milliseconds a token.

Blocks of 256 with a zero point, clipped where that loses least: on two cores a fifth faster than
blocks of 128 for one row and for a prompt (ONNX Runtime's kernel works once a block), and closer to
the weights than the symmetric blocks of 128 without that search which others store: 10.1 against
10.3 % of a normal matrix, 14.5 against 15.1 % of one with heavy tails.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import onnx_ir as ir

from alm.precision import Storage, everywhere
from exporters import lazy
from exporters.levers import Embeds, _experts, _nbits, int8
from exporters.matmuls import CONTRIB, Product, products
from wrappers import Wrapper

SCHEME = _nbits.Scheme(bits=4, block=256, search=True)
LM_HEAD = "lm_head"  # the product that decides the token
BOUND = 1.4  # of a decoder: the root of 2 is what an unrelated output has


def storage(scheme: _nbits.Scheme, sensitive: tuple[str, ...] = ()) -> dict[str, Storage]:
    """A decoder in this scheme, but for its sensitive products in 8 bits; the rest as `int8`."""
    head = _nbits.codes(int8.SCHEME) if LM_HEAD in sensitive else None
    others = tuple(word for word in sensitive if word != LM_HEAD)
    decoder = _nbits.storage(scheme, head=head, as_head=others, backends=int8.BACKENDS, bound=BOUND)
    return everywhere(int8.INTEGERS, decoder=decoder, table=int8.ROWS)


@dataclass(frozen=True)
class Lever:
    """4 bits in a decoder; other parts as `int8` has them."""

    scheme: _nbits.Scheme = SCHEME
    sensitive: tuple[str, ...] = ()  # words in the names of products that get 8 bits

    STORAGE = storage(SCHEME)
    LEAVES_ALONE = (
        "encoders and bridges, where 4 bits cost words and gain no time and which get int8; front "
        "ends, norms, attention's products, routers of experts"
    )

    def prepare(self, part: Wrapper, embeds: Embeds) -> None:
        """Nothing."""

    def careful(self, name: str) -> bool:
        """Whether the product of this weight gets 8 bits."""
        return any(word in name for word in self.sensitive)

    def made(self, product: Product) -> Callable[[], _nbits.Quantized] | None:
        """What gives a product's codes where they are not each the nearest."""
        return None

    def rewrite(self, model: ir.Model, role: str) -> ir.Model:
        """Change the graph in place."""
        if role != "decoder":
            return int8.Lever().rewrite(model, role)
        for product in products(model.graph):
            if product.sizes[0] < int8.LEAST:
                continue
            scheme = int8.SCHEME if self.careful(product.name) else self.scheme
            _nbits.put(product, scheme, self.made(product))
        _experts.quantize(model.graph, self.scheme)
        model.opset_imports[CONTRIB] = 1
        lazy.drop_unused(model.graph)
        return model
