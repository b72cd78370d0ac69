"""Products with constant weights in a graph: what the levers turn into something smaller."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import onnx_ir as ir
import torch
from torch import Tensor

from exporters import lazy

CONTRIB = "com.microsoft"

# Products that choose a layer's experts, or weigh the shared one. No lever touches them: they are a
# thousandth of the weights, and to round one is to send tokens to other experts.
ROUTERS = (".mlp.gate.weight", ".mlp.shared_expert_gate.weight")


@dataclass(frozen=True)
class Product:
    """y = x W + bias, as a MatMul or a Gemm node."""

    node: ir.Node
    x: ir.Value
    weight: ir.Value
    bias: ir.Value | None
    turned: bool  # the weight is [out, in]

    @property
    def name(self) -> str:
        """The weight's name in the checkpoint."""
        return str(self.weight.name)

    @property
    def sizes(self) -> tuple[int, int]:
        """Rows and columns of W: inputs, outputs."""
        rows, columns = lazy.shape_of(self.weight)
        return (columns, rows) if self.turned else (rows, columns)

    def read(self) -> Tensor:
        """W' [out, in], in the dtype of the checkpoint where that is known."""
        held = self.weight.const_value
        if isinstance(held, lazy.Weight):
            return held.source()
        array = lazy.reader(self.weight)()
        # Weights of a mapped file may be read only, which a tensor cannot be.
        values = torch.from_numpy(array if array.flags.writeable else array.copy())
        return values if self.turned else values.T

    def replace(self, nodes: Sequence[ir.Node], y: ir.Value, bias_is_in: bool = False) -> None:
        """Put `nodes`, of which y = x W comes out, in the place of the product."""
        inserted, out = list(nodes), self.node.outputs[0]
        if self.bias is not None and not bias_is_in:
            inserted.append(ir.node("Add", [y, self.bias]))
            y = inserted[-1].outputs[0]
        y.name, y.shape, y.type = out.name, out.shape, out.type
        graph = self.node.graph
        assert isinstance(graph, ir.Graph)
        graph.insert_before(self.node, inserted)
        is_output = out.is_graph_output()
        out.replace_all_uses_with(y, replace_graph_outputs=is_output)
        graph.remove(self.node, safe=True)


def products(graph: ir.Graph) -> Iterator[Product]:
    """Every product with a constant matrix but a router's, in the order of the graph."""
    for node in list(graph):
        product = _product(node)
        if product is not None and not product.name.endswith(ROUTERS):
            yield product


def _product(node: ir.Node) -> Product | None:
    if node.domain or node.op_type not in ("MatMul", "Gemm"):
        return None
    x, weight = node.inputs[:2]
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    if x is None or weight is None or weight.const_value is None or len(weight.shape or ()) != 2:
        return None
    if not weight.is_initializer():
        return None
    turned = False
    if node.op_type == "Gemm":
        attributes = {name: attribute.value for name, attribute in node.attributes.items()}
        if (
            attributes.get("transA", 0)
            or attributes.get("alpha", 1.0) != 1.0
            or attributes.get("beta", 1.0) != 1.0
        ):
            return None
        turned = bool(attributes.get("transB", 0))
    return Product(node, x, weight, bias, turned)


def cast(value: ir.Value, dtype: ir.DataType) -> ir.Node:
    """A Cast node; its output knows its dtype."""
    node = ir.node("Cast", [value], {"to": int(dtype)})
    node.outputs[0].dtype, node.outputs[0].shape = dtype, value.shape
    return node


class Once:
    """Nodes that several products share, each put before the first of them."""

    def __init__(self) -> None:
        self._nodes: dict[int, list[ir.Node]] = {}

    def of(self, product: Product, make: list[ir.Node] | None = None) -> list[ir.Node]:
        """The nodes put in for this product's input before; else `make`, put before the product."""
        key = id(product.x)
        if key not in self._nodes and make is not None:
            graph = product.node.graph
            assert isinstance(graph, ir.Graph)
            graph.insert_before(product.node, make)
            self._nodes[key] = make
        return self._nodes.get(key, [])
