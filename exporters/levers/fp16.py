"""float16: weights and products of linear layers and convolutions, half the bytes."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from alm.precision import Codes, Storage, everywhere
from exporters import lazy
from exporters.levers import Embeds, _experts
from exporters.levers._half import attention
from exporters.matmuls import Once, cast, products
from wrappers import Wrapper

HALF, FLOAT = ir.DataType.FLOAT16, ir.DataType.FLOAT
STORED = Storage(Codes("float16"), computes=("float16",), bound=1e-2)


@dataclass(frozen=True)
class Lever:
    """Half of the bytes; worst error about 1e-3 of the largest value."""

    STORAGE = everywhere(STORED, decoder=replace(STORED, cache="float16"))
    LEAVES_ALONE = (
        "front ends, whose powers span more than float16 holds; norms, softmax, activations and "
        "the residual stream, because float16 norms are a known cause of wrong transcripts; "
        "biases; routers of experts"
    )

    def prepare(self, part: Wrapper, embeds: Embeds) -> None:
        """The KV cache is kept in float16."""
        if part.role != "frontend":
            part.keep_state_in("float16")

    def rewrite(self, model: ir.Model, role: str) -> ir.Model:
        """Change the graph in place."""
        if role == "frontend":
            return model
        graph, once = model.graph, Once()
        for product in products(graph):
            (x,) = once.of(product) or once.of(product, [cast(product.x, HALF)])
            shape, read = lazy.shape_of(product.weight), lazy.reader(product.weight)
            name = f"{product.name}.float16"
            weight = lazy.add(graph, name, shape, lambda read=read: _half(read()), HALF)
            inputs = [x.outputs[0], weight]
            y = ir.Node("", product.node.op_type, inputs, product.node.attributes.values())
            y.outputs[0].dtype = HALF
            back = cast(y.outputs[0], FLOAT)
            product.replace([y, back], back.outputs[0])
        for node in list(graph):
            if node.op_type == "Conv":
                _convolve(graph, node)
        _experts.narrow(graph, HALF)
        attention(graph)  # of the dialect `standard`: the others spell it out in float32
        lazy.drop_unused(graph)
        return model


def _half(values: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):  # infinite then, which the comparison refuses to ship
        return values.astype(np.float16)


def _convolve(graph: ir.Graph, node: ir.Node) -> None:
    """A convolution in float16, its bias added in float32."""
    x, weight = node.inputs[:2]
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    if x is None or weight is None or not weight.is_initializer():
        return
    shape, read = lazy.shape_of(weight), lazy.reader(weight)
    name = f"{weight.name}.float16"
    narrow = lazy.add(graph, name, shape, lambda: _half(read()), HALF)
    nodes = [cast(x, HALF)]
    nodes.append(ir.Node("", "Conv", [nodes[0].outputs[0], narrow], node.attributes.values()))
    nodes[-1].outputs[0].dtype = HALF
    nodes.append(cast(nodes[-1].outputs[0], FLOAT))
    if bias is not None:
        spread = (shape[0],) + (1,) * (len(shape) - 2)
        of_bias = lazy.reader(bias)
        spread_bias = lazy.add(
            graph, f"{bias.name}.spread", spread, lambda: of_bias().reshape(spread)
        )
        nodes.append(ir.node("Add", [nodes[-1].outputs[0], spread_bias]))
    out, y = node.outputs[0], nodes[-1].outputs[0]
    y.name, y.shape, y.type = out.name, out.shape, out.type
    graph.insert_before(node, nodes)
    out.replace_all_uses_with(y, replace_graph_outputs=out.is_graph_output())
    graph.remove(node, safe=True)
