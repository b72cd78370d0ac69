"""A part made smaller: units of its sites cut out of its weights, whole layers left out.

Weights that are read when they are needed stay so: what is cut is cut as it is read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from alm.ports import CACHE_IN, CACHE_OUT, Port
from exporters.levers._structures import HEADS, Site, counts
from wrappers import Wrapper
from wrappers.checkpoint.weights.tensors import Weights
from wrappers.layers.decoder import Decoder
from wrappers.layers.decoder_layers import Layer

Kept = Mapping[str, Tensor]  # by a site's path: its units that stay, in their order


class Skipped(nn.Module):
    """In the place of a layer that is left out: what it gives are those inputs."""

    def __init__(self, gives: tuple[int, ...]) -> None:
        super().__init__()
        self.gives = gives

    def forward(self, *inputs: Any) -> Any:
        """The first of the inputs, and what the layer handed on unchanged."""
        made = [inputs[i] for i in self.gives]
        return tuple(made) if len(made) > 1 else made[0]


def shrink(
    part: Wrapper, sites: Sequence[Site], kept: Kept, skipped: Mapping[str, tuple[int, ...]]
) -> dict[str, Tensor]:
    """Cut a part in place.

    Args:
        part: whatever has been asked of it before stays true of no call behind this.
        sites: of the part.
        kept: what stays of each.
        skipped: paths of layers, and which of their inputs they are to give instead.

    Returns:
        By names of the ports of a decoder's cache: which heads of the whole they hold.
    """
    if not skipped and all(len(kept[site.path]) == site.units for site in sites):
        return {}
    before = dict(part.inputs)
    for site in sites:
        if len(kept[site.path]) < site.units:
            _cut(part, site, kept[site.path])
    if not isinstance(part, Decoder):
        for path, gives in skipped.items():
            _put(part, path, Skipped(gives))
        return {}
    _describe(part, {int(path.rpartition(".")[2]) for path in skipped})
    return _of_ports(part, before, kept)


def _cut(part: Wrapper, site: Site, units: Tensor) -> None:
    """Leave these units of a site alone in the part."""
    for piece in site.pieces:
        _narrow(part, piece.name, piece.axis, piece.index(units))
        if piece.name.endswith(".weight"):
            linear: Any = part.get_submodule(piece.name.removesuffix(".weight"))
            linear.out_features, linear.in_features = linear.weight.shape
    if site.kind == HEADS:
        _fewer(part.get_submodule(site.path), site.units, units)


def _narrow(part: nn.Module, name: str, axis: int, index: Tensor) -> None:
    """Keep of a parameter what the index says along an axis."""
    path, _, leaf = name.rpartition(".")
    parameter = part.get_parameter(name)
    if parameter.is_meta:
        source = part.__dict__["source"]
        shape = list(parameter.shape)
        shape[axis] = len(index)
        smaller = Weights(source.where)
        smaller.add(name, tuple(shape), lambda: source[name].index_select(axis, index))
        part.__dict__["source"] = cut = source.over(smaller)
        cut.where = source.where
        narrow = torch.empty(shape, dtype=parameter.dtype, device="meta")
    else:
        narrow = parameter.detach().index_select(axis, index)
    part.get_submodule(path)._parameters[leaf] = nn.Parameter(narrow, requires_grad=False)


def _fewer(attention: Any, units: int, kept: Tensor) -> None:
    """Tell an attention of the heads it has, `kept` of `units`."""
    heads, kv_heads = counts(attention)
    group, count = heads // units, len(kept)
    if hasattr(attention, "spec"):
        spec = replace(attention.spec, heads=count * group, kv_heads=count)
        attention.spec, dim = spec, spec.head_dim
        attention.sizes = [spec.heads * dim, *2 * [count * dim]]
        return
    attention.heads = count * group
    if hasattr(attention, "kv_heads"):
        attention.kv_heads = count
    if heads > 1:
        # A bias of positions is made once for all layers, with all heads.
        of_bias = (kept[:, None] * group + torch.arange(group)).flatten()
        attention.register_buffer("heads_of_bias", of_bias, persistent=False)
        attention.register_forward_pre_hook(lambda m, inputs: _biased(m, inputs, heads))


def _biased(attention: Any, inputs: tuple[Any, ...], heads: int) -> tuple[Any, ...]:
    """The inputs, of a bias [batch or 1, heads, queries, keys] the heads that there are."""

    def narrowed(x: Any) -> Any:
        wide = isinstance(x, Tensor) and x.ndim == 4 and x.shape[1] == heads
        return x.index_select(1, attention.heads_of_bias) if wide else x

    return tuple(map(narrowed, inputs))


def _put(part: nn.Module, path: str, module: nn.Module) -> None:
    above, _, name = path.rpartition(".")
    part.get_submodule(above)._modules[name] = module


def _describe(part: Decoder, gone: set[int]) -> None:
    """Leave layers out of a decoder, and make its spec and ports true of what is left."""
    spec = part.spec
    layers: Any = part.model.layers
    uneven = []
    for i, layer in enumerate(layers):
        at = spec.at(i)
        sizes = dict(spec.uneven[i]) if spec.uneven else {}
        if i in gone:
            sizes |= dict(heads=0, kv_heads=0, intermediate=0)
            layers[i] = Layer(replace(at, **sizes), 0)
        else:
            heads, kv_heads = counts(layer.self_attn) if layer.attends else (0, 0)
            down = getattr(getattr(layer, "mlp", None), "down_proj", None)
            wide = down.in_features if isinstance(down, nn.Linear) else at.intermediate
            sizes |= dict(heads=heads, kv_heads=kv_heads, intermediate=wide)
        uneven.append(sizes)
    whole = {name: max(sizes[name] for sizes in uneven) for name in ("heads", "kv_heads")}
    whole["intermediate"] = max(sizes["intermediate"] for sizes in uneven)
    part.spec = replace(spec, **whole, uneven=tuple(uneven))
    part.model.attending = [i for i in part.model.attending if i not in gone]
    part.keep_state_in("float32")


def _of_ports(part: Decoder, before: Mapping[str, Port], kept: Kept) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for i, _ in part.model.attentions():
        heads = kept.get(f"model.layers.{i}.self_attn")
        for kind in ("key", "value"):
            if heads is not None and f"{CACHE_IN}{i}.{kind}" in before:
                found |= {f"{way}{i}.{kind}": heads for way in (CACHE_IN, CACHE_OUT)}
    return found
