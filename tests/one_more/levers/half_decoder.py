"""half_decoder: the decoder's weights in float16, its products and its cache in float32."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from alm.precision import Codes, Storage
from exporters import lazy
from exporters.levers import Embeds
from exporters.matmuls import cast, products
from wrappers import Wrapper

HALF = ir.DataType.FLOAT16


@dataclass(frozen=True)
class Lever:
    """Half of the decoder's bytes."""

    STORAGE = {"decoder": Storage(Codes("float16"), bound=1e-2)}
    LEAVES_ALONE = "everything but the decoder's products"

    def prepare(self, part: Wrapper, embeds: Embeds) -> None:
        """Nothing."""

    def rewrite(self, model: ir.Model, role: str) -> ir.Model:
        """Change the graph in place."""
        if role != "decoder":
            return model
        graph = model.graph
        for product in products(graph):
            shape, read = lazy.shape_of(product.weight), lazy.reader(product.weight)
            name = f"{product.name}.float16"
            half = lazy.add(graph, name, shape, lambda read=read: read().astype(np.float16), HALF)
            wide = cast(half, ir.DataType.FLOAT)
            graph.insert_before(product.node, wide)
            product.node.replace_input_with(1, wide.outputs[0])
        lazy.drop_unused(graph)
        return model
