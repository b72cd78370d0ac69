"""bfloat16: weights stored in half of the bytes, products in float32.

Most LLMs are published in bfloat16: for them this loses nothing. ONNX Runtime has no bfloat16
products on the CPU and widens the weights while it loads them.
"""

from __future__ import annotations

from dataclasses import dataclass

import ml_dtypes
import onnx_ir as ir

from alm.precision import Codes, Storage, everywhere
from exporters import lazy
from exporters.levers import Embeds, _experts
from exporters.matmuls import cast, products
from wrappers import Wrapper

BFLOAT = ir.DataType.BFLOAT16


@dataclass(frozen=True)
class Lever:
    """Half of the bytes on disk; exact where the checkpoint is in bfloat16."""

    # The table is stored as exactly as it came.
    STORAGE = everywhere(Storage(Codes("bfloat16"), bound=0.1), table=Storage(bound=0.1))
    LEAVES_ALONE = "front ends, convolutions, norms, biases, routers, and all that is computed"

    def prepare(self, part: Wrapper, embeds: Embeds) -> None:
        """Nothing."""

    def rewrite(self, model: ir.Model, role: str) -> ir.Model:
        """Change the graph in place."""
        if role == "frontend":
            return model
        graph = model.graph
        for product in products(graph):
            shape, read = lazy.shape_of(product.weight), lazy.reader(product.weight)
            narrow = lazy.add(
                graph,
                f"{product.name}.bfloat16",
                shape,
                lambda read=read: read().astype(ml_dtypes.bfloat16),
                BFLOAT,
            )
            wide = cast(narrow, ir.DataType.FLOAT)
            graph.insert_before(product.node, wide)
            product.node.replace_input_with(1, wide.outputs[0])
        _experts.narrow(graph, BFLOAT)
        lazy.drop_unused(graph)
        return model
