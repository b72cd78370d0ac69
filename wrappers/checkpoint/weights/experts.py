"""Experts as published files name them, as the tensors that hold all experts of a layer.

A file has a matrix an expert: `experts.3.gate_proj.weight`, `up_proj` and `down_proj`, of Mixtral
under `block_sparse_moe` and called `w1`, `w3` and `w2`. transformers 5 writes these names too, and
in memory has `experts.gate_up_proj` [experts, 2 * intermediate, hidden], gates before ups, and
`experts.down_proj` [experts, hidden, intermediate]: see its conversion_mapping.py. A file with
those two passes through.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial

import torch
from torch import Tensor

from alm.errors import BadCheckpoint
from wrappers.checkpoint.weights.fit import listed
from wrappers.checkpoint.weights.tensors import Weights

ONE = re.compile(r"(?P<place>.*\.experts)\.(?P<at>\d+)\.(?P<leaf>\w+)\.weight$")
GATE, UP, DOWN = "gate_proj", "up_proj", "down_proj"
LEAVES = {GATE: GATE, UP: UP, DOWN: DOWN, "w1": GATE, "w3": UP, "w2": DOWN}
BLOCK = ".block_sparse_moe."  # Mixtral's name of what others call `mlp`
MOST = 2**16  # experts of a layer; the largest models have some hundreds

Group = dict[tuple[int, str], str]  # number of the expert and GATE, UP or DOWN -> the file's name


def fused(weights: Weights) -> Weights:
    """The weights with the experts of a layer in two tensors, each read expert by expert.

    No value is read before it is taken; taking one holds that layer's tensor and one expert.

    Raises:
        BadCheckpoint: a layer lacks a matrix of an expert, has some of another shape, or holds its
            experts both ways; all that is wrong is named.
    """
    plain, groups = Weights(weights.where), dict[str, Group]()
    for name, shape in weights.shapes.items():
        match = ONE.match(name)
        leaf = LEAVES.get(match["leaf"]) if match else None
        if match and leaf and len(match["at"]) < 6:
            place = match["place"].replace(BLOCK, ".mlp.")
            groups.setdefault(place, {})[int(match["at"]), leaf] = name
        else:
            plain.add(name.replace(BLOCK, ".mlp."), shape, partial(weights.__getitem__, name))
    wrong = [fault for place, group in groups.items() for fault in _faults(plain, place, group)]
    wrong = wrong or [fault for group in groups.values() for fault in _misshapen(weights, group)]
    if wrong:
        raise BadCheckpoint(f"{weights.where}: {listed(wrong)}")
    for place, group in groups.items():
        _add(plain, weights, place, group)
    return plain


def _faults(plain: Weights, place: str, group: Group) -> list[str]:
    """What a layer lacks, or has twice."""
    both = [f"{place}.{leaf}" for leaf in ("gate_up_proj", DOWN) if f"{place}.{leaf}" in plain]
    if both:
        return [f"{name} is there, and so are matrices of single experts" for name in both]
    count = _count(group)
    if count > MOST:
        return [f"{place} has an expert {count - 1}, and more than {MOST} are none"]
    absent = [(at, leaf) for at in range(count) for leaf in (GATE, UP, DOWN)]
    return [
        f"{place}.{at}.{leaf}.weight is missing" for at, leaf in absent if (at, leaf) not in group
    ]


def _misshapen(weights: Weights, group: Group) -> list[str]:
    """Matrices that are not as the first expert's, or do not fit each other."""
    gate = weights.shapes[group[0, GATE]]
    if len(gate) != 2:
        return [f"{group[0, GATE]} is {list(gate)}, no matrix"]
    wanted = {GATE: gate, UP: gate, DOWN: gate[::-1]}
    return [
        f"{name} is {list(weights.shapes[name])} and not {list(wanted[leaf])}"
        for (_, leaf), name in sorted(group.items())
        if tuple(weights.shapes[name]) != tuple(wanted[leaf])
    ]


def _count(group: Mapping[tuple[int, str], str]) -> int:
    return 1 + max(at for at, _ in group)


def _add(plain: Weights, weights: Weights, place: str, group: Group) -> None:
    count = _count(group)
    wide, hidden = weights.shapes[group[0, GATE]]
    pairs = [[group[at, GATE], group[at, UP]] for at in range(count)]
    downs = [[group[at, DOWN]] for at in range(count)]
    plain.add(f"{place}.gate_up_proj", (count, 2 * wide, hidden), partial(_stack, weights, pairs))
    plain.add(f"{place}.{DOWN}", (count, hidden, wide), partial(_stack, weights, downs))


def _stack(weights: Weights, experts: list[list[str]]) -> Tensor:
    """[experts, rows, columns] of the matrices of each expert, one above the other."""
    first = weights[experts[0][0]]
    rows = len(first) * len(experts[0])
    whole = torch.empty(len(experts), rows, first.shape[1], dtype=first.dtype)
    for place, names in zip(whole, experts, strict=True):
        for half, name in zip(place.chunk(len(names)), names, strict=True):
            half.copy_(weights[name])
    return whole
