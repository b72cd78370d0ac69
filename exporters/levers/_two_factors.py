"""A product with a constant matrix as two: down to a few components, and up from them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
import torch
from torch import Tensor

from exporters import lazy
from exporters.levers._principal import INPUTS, LAYERS, Basis
from exporters.matmuls import Product

Read = Callable[[], np.ndarray]  # W' [out, in]


@dataclass(frozen=True)
class Factors:
    """What stands for one Linear: y = (x down) up + bias + shift."""

    down: str  # name of the initializer; that of several Linears where it is shared
    up: str
    taken: tuple[tuple[str, Tensor], ...]  # down is the sum of W of a weight times these [out, k]
    components: Tensor  # float32 [out, k]: up, turned
    shift: Tensor  # float32 [out]


def factors(bases: Iterable[Basis]) -> dict[str, Factors]:
    """By the names of the weights."""
    made: dict[str, Factors] = {}
    for basis in bases:
        names = [linear.place.name for linear in basis.linears]
        # The components of joined outputs are those of each divided by the root of its energy.
        alone = basis.how != INPUTS
        norms = [1.0 if alone else x.energy**0.5 for x in basis.linears]
        parts = list(zip(basis.linears, basis.components, norms, strict=True))
        whole = tuple((x.place.name, v if alone else v / norm) for x, v, norm in parts)
        middle = sum((x.mean / norm) @ v.double() for x, v, norm in parts)
        for (linear, v, norm), own in zip(parts, whole, strict=True):
            name, code = linear.place.name, linear.mean @ v.double() if alone else middle
            up = v if alone else v * norm
            made[name] = Factors(
                down=f"{name if alone else names[0]}.down",
                up=f"{names[0] if basis.how == LAYERS else name}.up",
                taken=(own,) if alone else whole,
                components=up,
                shift=(linear.mean - up.double() @ code).float(),
            )
    return made


def put(
    every: Mapping[str, Product], made: Mapping[str, Factors], readers: Mapping[str, Read]
) -> None:
    """Put factors in the places of the products whose weights have any."""
    down_nodes: dict[tuple[int, str], ir.Node] = {}
    for name, product in every.items():
        if name in made and all(other in readers for other, _ in made[name].taken):
            _put(product, made[name], readers, down_nodes)


def _put(
    product: Product,
    made: Factors,
    readers: Mapping[str, Read],
    down_nodes: dict[tuple[int, str], ir.Node],
) -> None:
    graph = product.node.graph
    assert isinstance(graph, ir.Graph)
    (inputs, outputs), rank = product.sizes, made.components.shape[1]

    def read_down() -> np.ndarray:
        pieces = (torch.from_numpy(readers[name]()).T @ v for name, v in made.taken)
        return torch.stack(list(pieces)).sum(0).numpy()

    key = (id(product.x), made.down)
    nodes: list[ir.Node] = []
    if key not in down_nodes:
        down = lazy.add(graph, made.down, (inputs, rank), read_down)
        down_nodes[key] = ir.node("MatMul", [product.x, down])
        down_nodes[key].outputs[0].dtype = ir.DataType.FLOAT
        nodes.append(down_nodes[key])
    up = lazy.add(graph, made.up, (rank, outputs), lambda: made.components.T.contiguous().numpy())
    nodes.append(ir.node("MatMul", [down_nodes[key].outputs[0], up]))
    nodes[-1].outputs[0].dtype = ir.DataType.FLOAT
    after = _bias_behind(product) if product.bias is None else None
    bias = after[1] if after else product.bias
    constant = bias is None or (bias.is_initializer() and bias.const_value is not None)
    shifted = _shifted(graph, product.name, bias if constant else None, made.shift)
    if after:
        node, _, at = after
        node.replace_input_with(at, shifted)
        product.replace(nodes, nodes[-1].outputs[0])
        return
    nodes.append(ir.node("Add", [nodes[-1].outputs[0], shifted]))
    nodes[-1].outputs[0].dtype = ir.DataType.FLOAT
    product.replace(nodes, nodes[-1].outputs[0], bias_is_in=constant)


def _bias_behind(product: Product) -> tuple[ir.Node, ir.Value, int] | None:
    """The Add that alone reads the product, its constant of one axis, and which input that is."""
    uses = list(product.node.outputs[0].uses())
    if len(uses) != 1 or product.node.outputs[0].is_graph_output():
        return None
    node, at = uses[0]
    if node.op_type != "Add" or node.domain:
        return None
    other = node.inputs[1 - at]
    if other is None or not other.is_initializer() or other.const_value is None:
        return None
    return (node, other, 1 - at) if lazy.shape_of(other) == (product.sizes[1],) else None


def _shifted(graph: ir.Graph, name: str, bias: ir.Value | None, shift: Tensor) -> ir.Value:
    """An initializer [out]: the bias, where there is one, and the shift."""
    read = lazy.reader(bias) if bias is not None else None

    def values() -> np.ndarray:
        return shift.numpy() if read is None else read().reshape(-1) + shift.numpy()

    return lazy.add(graph, f"{name}.shifted", tuple(shift.shape), values)
