"""Pruned LLMs: layers whose weights have other sizes than the config says, or none at all.

Structured pruners save a plain folder in which layers differ, beside the config of the whole model.
A layer's sizes are taken from its weights only where all of them agree; otherwise the spec stays as
the config has it, and the weights are found misshapen.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from alm.errors import BadCheckpoint
from wrappers.checkpoint import pruned_lists
from wrappers.checkpoint.pruned_lists import dropped
from wrappers.checkpoint.weights.tensors import Weights
from wrappers.layers.spec import Spec

NUMBER = re.compile(r"^model\.layers\.(\d{1,18})\.")
MOST_LISTED = 8  # layers that are not there
Shapes = Mapping[str, tuple[int, ...]]
SLICED = ("attn_shortcut_Q", "mlp_shortcut_Q")
# What a layer without attention lacks, and one without an MLP; below, with norms on both sides.
LACKS = (
    (("self_attn.", "input_layernorm."), ("mlp.", "post_attention_layernorm.")),
    (
        ("self_attn.", "input_layernorm.", "post_attention_layernorm."),
        ("mlp.", "pre_feedforward_layernorm.", "post_feedforward_layernorm."),
    ),
)


@dataclass(frozen=True)
class Rows:
    """What the weights of one layer say: rows of queries and keys, and the MLP's width; 0: none."""

    queries: int
    keys: int
    wide: int
    output_bias: bool
    down_bias: bool


def fitted(spec: Spec, weights: Weights, *, unsaid: bool = False) -> Spec:
    """The spec with the sizes that the layers' weights have.

    Args:
        weights: the LLM's, under transformers' names.
        unsaid: the config does not say head_dim, and transformers' own for it may be wrong.

    Raises:
        BadCheckpoint: heads that do not go into groups, sizes that two head_dims explain, or lists
            of the config that contradict the weights.
    """
    none = dropped(spec)
    if faults(spec, weights) or not {*range(spec.layers)} <= _there(spec, weights.shapes):
        return spec
    rows = [_rows(i, spec, weights.shapes, none) for i in range(spec.layers)]
    known = [each for each in rows if each]
    if len(known) < len(rows) or not any(each.queries for each in known):
        return spec
    if not unsaid or all(_as_said(each, spec) for each in known):
        head_dim = spec.head_dim
    else:
        head_dim = _head_dim(spec, known, weights.where)
    if any(each.queries % head_dim or each.keys % head_dim for each in known):
        return spec
    sized = _sized(spec, known, head_dim, weights.where)
    pruned_lists.check(sized, weights.where)
    return sized


def left(spec: Spec, weights: Weights) -> Weights:
    """The weights without those of attention and MLPs that the config says are dropped."""
    none = dropped(spec)
    gone = tuple(
        f"model.layers.{i}.{name}"
        for layers, names in zip(none, LACKS[spec.sandwich], strict=True)
        for i in layers
        for name in names
    )
    if not any(name.startswith(gone) for name in weights.shapes):
        return weights
    kept = Weights(weights.where)
    for name, shape in weights.shapes.items():
        if not name.startswith(gone):
            kept.add(name, shape, lambda name=name: weights[name])
    return kept


def faults(spec: Spec, weights: Weights) -> list[str]:
    """What says of a folder that it was pruned in a way that is not read, in sentences."""
    wrong: list[str] = []
    if any(name.endswith(SLICED) for name in weights.shapes):
        wrong.append(
            f"{weights.where} was sliced by SliceGPT, whose layers turn the residual stream from "
            "one basis into another; that is not done here"
        )
    if gaps := _gaps(spec, weights.shapes):
        wrong.append(
            f"{weights.where}: layers are numbered up to {gaps}; where layers were taken out, "
            "number those that are left from 0 on, without gaps, and say how many in "
            "num_hidden_layers"
        )
    return wrong


def _gaps(spec: Spec, shapes: Shapes) -> str:
    """The layers that are left out of the numbers, in words; "" where none is."""
    numbers = _there(spec, shapes)
    last = max(numbers, default=-1)  # which a name may make as large as it likes
    absent = list(islice((i for i in range(last + 1) if i not in numbers), MOST_LISTED + 1))
    shown = ", ".join(map(str, absent[:MOST_LISTED]))
    more = " ..." if len(absent) > MOST_LISTED else ""
    return f"{last} without {shown}{more}" if absent else ""


def head_dim_beside(plain: Mapping[str, Any], weights: Weights) -> int | None:
    """The head_dim of a config.json whose heads do not go into its hidden_size, and says none."""
    said = [plain.get("num_attention_heads"), plain.get("num_key_value_heads")]
    heads, kv_heads = said[0], said[1] or said[0]
    found: set[float] = set()
    for i in _numbers(weights.shapes):
        for name, of in (("q_proj", heads), ("k_proj", kv_heads)):
            shape = weights.shapes.get(f"model.layers.{i}.self_attn.{name}.weight", ())
            found.add(shape[0] / of if len(shape) == 2 and of else 0.0)
    size = found.pop() if len(found) == 1 else 0.0
    return int(size) if size and size == int(size) else None


def _there(spec: Spec, shapes: Shapes) -> set[int]:
    """The layers that have weights, and those that need none."""
    no_attention, no_mlp = dropped(spec)
    return _numbers(shapes) | no_attention & no_mlp


def _numbers(shapes: Shapes) -> set[int]:
    return {int(match[1]) for name in shapes if (match := NUMBER.match(name))}


def _rows(i: int, spec: Spec, shapes: Shapes, none: tuple[set[int], set[int]]) -> Rows | None:
    """What the weights of layer i say; None where they contradict each other."""

    def shape(name: str) -> tuple[int, ...]:
        return shapes.get(f"model.layers.{i}.{name}", ())

    queries = keys = wide = 0
    if i not in none[0]:
        rows = [shape(f"self_attn.{name}_proj.weight") for name in "qkv"]
        back = shape("self_attn.o_proj.weight")
        if any(len(each) != 2 or each[1] != spec.hidden for each in rows):
            return None
        queries, keys = rows[0][0], rows[1][0]
        if rows[2][0] != keys or back != (spec.hidden, queries) or not queries or not keys:
            return None
    if i not in none[1]:
        into = [shape(f"mlp.{name}_proj.weight") for name in ("gate", "up")]
        down = shape("mlp.down_proj.weight")
        wide = down[1] if len(down) == 2 else 0
        if not wide or down[0] != spec.hidden or into != [(wide, spec.hidden)] * 2:
            return None
    biases = [bool(shape(f"{name}.bias")) for name in ("self_attn.o_proj", "mlp.down_proj")]
    return Rows(queries, keys, wide, *biases)


def _as_said(rows: Rows, spec: Spec) -> bool:
    """Whether the heads of a layer are those of the config."""
    d = spec.head_dim
    return (rows.queries, rows.keys) in ((spec.heads * d, spec.kv_heads * d), (0, 0))


def _head_dim(spec: Spec, rows: list[Rows], where: str) -> int:
    """head_dim where no config says it: the one that explains the sizes of every layer."""
    attending = [each for each in rows if each.queries]
    beside = attending[0].queries // spec.heads
    counts = all(
        (each.queries, each.keys) == (spec.heads * beside, spec.kv_heads * beside)
        for each in attending
    )
    fewer = all(each.queries % spec.head_dim == 0 == each.keys % spec.head_dim for each in rows)
    if counts and fewer:
        raise BadCheckpoint(
            f"{where} has {attending[0].queries} rows of queries in every layer, which are "
            f"{spec.heads} heads of {beside} or {attending[0].queries // spec.head_dim} of "
            f"{spec.head_dim}; say head_dim in the config.json beside it"
        )
    return beside if counts and beside % 2 == 0 else spec.head_dim


def _sized(spec: Spec, rows: list[Rows], head_dim: int, where: str) -> Spec:
    """The spec of what the layers have, the whole's sizes those of the widest layer."""
    each: list[dict[str, Any]] = []
    for i, of in enumerate(rows):
        heads, kv_heads = of.queries // head_dim, of.keys // head_dim
        if kv_heads and heads % kv_heads:
            raise BadCheckpoint(
                f"{where}: layer {i} has {heads} heads of queries and {kv_heads} of keys, and the "
                "first must be a multiple of the second"
            )
        sizes = dict(heads=heads, kv_heads=kv_heads, intermediate=of.wide)
        sizes |= dict(output_bias=spec.output_bias or of.output_bias)
        each.append(sizes | dict(down_bias=not spec.mlp_bias and of.down_bias))
    whole = {name: max(sizes[name] for sizes in each) for name in each[0]}
    same = ("heads", "kv_heads", "intermediate")  # a bias alone is a tensor that nothing takes
    if head_dim == spec.head_dim and all(
        sizes[name] == getattr(spec.at(i), name) for i, sizes in enumerate(each) for name in same
    ):
        return spec
    config = spec.config
    if head_dim != spec.head_dim:
        config = copy.copy(config)  # which rope reads
        config.head_dim = head_dim
    uneven = () if each == [whole] * len(each) else tuple(each)
    sized = replace(spec, **whole, head_dim=head_dim, config=config, uneven=uneven)
    return replace(sized, found=(_told(spec, sized, each, where),))


def _told(said: Spec, spec: Spec, each: list[dict[str, Any]], where: str) -> str:
    """For the person who exports: what differs from the config."""

    def span(name: str) -> str:
        sizes = [sizes[name] for sizes in each]
        return str(sizes[0]) if len(set(sizes)) == 1 else f"{min(sizes)} to {max(sizes)}"

    text = (
        f"the LLM in {where} is pruned: its weights have {span('heads')} heads, "
        f"{span('kv_heads')} of keys and values, and MLPs {span('intermediate')} wide a layer, and "
        f"its config says {said.heads}, {said.kv_heads} and {said.intermediate}"
    )
    if spec.head_dim != said.head_dim:
        text += f"; heads are {spec.head_dim} wide, which no config says"
    names = {"output_bias": "o_proj", "down_bias": "down_proj"}
    of = [n for key, n in names.items() if getattr(spec, key) and not getattr(said, key)]
    return text + (f"; {' and '.join(of)} have biases" if of else "")
