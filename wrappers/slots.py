"""Slots: a part's Linears with a low-rank term beside them, whose weights are inputs of the graph.

y = W x + b + (x down) up, the LoRA of Hu et al. (2021) with its scale in `up`. Linears of one name
and shape share one pair of inputs, stacked over the layers: an LLM of 32 layers is fed 14 tensors
and not 448. Zeros give exactly nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from alm.errors import BadCheckpoint
from alm.ports import MOST_RANK, RANK, SLOT, Port, Span
from wrappers import Wrapper

USUAL_RANK = 16
TERM = "low_rank_term"  # a Linear's attribute: x -> what its slot adds, None where it is empty

Groups = dict[str, list[str]]  # group -> the paths of its Linears in the part, in order


def put(part: Wrapper, name: str, modules: Iterable[str]) -> Groups:
    """Give these Linears of the part slots, whose inputs follow all others.

    A call may leave them all out; then they are empty.
    """
    groups, sizes = _groups(part, set(modules))
    ports: dict[str, Port] = {}
    for group, (inner, outer) in sizes.items():
        layers, begin = len(groups[group]), f"{SLOT}{name}.{group}"
        ports[f"{begin}.down"] = Port("float32", (layers, inner, RANK))
        ports[f"{begin}.up"] = Port("float32", (layers, RANK, outer))
    now: dict[str, Tensor] = {}
    met: set[str] = set()
    part.__dict__["slots"], part.__dict__["slots_met"] = groups, met

    def add() -> None:
        part.inputs = {**part.inputs, **ports}
        part.spans = {**part.spans, RANK: Span(1, USUAL_RANK, MOST_RANK)}

    plain = part.keep_state_in

    def keep_state_in(dtype: str) -> None:
        plain(dtype)
        add()

    def take(_: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        now.clear()
        if len(args) < len(part.inputs):
            return args
        now.update(zip(ports, args[-len(ports) :], strict=True))
        return args[: -len(ports)]

    add()
    part.__dict__["keep_state_in"] = keep_state_in
    part.register_forward_pre_hook(take)
    part.register_forward_hook(lambda *_: now.clear(), always_call=True)
    for group, paths in groups.items():
        for layer, path in enumerate(paths):
            _fit(part.get_submodule(path), path, f"{SLOT}{name}.{group}", layer, now, met)
    return groups


def _groups(part: Wrapper, modules: set[str]) -> tuple[Groups, dict[str, tuple[int, int]]]:
    groups: Groups = {}
    sizes: dict[str, tuple[int, int]] = {}
    for path, module in part.named_modules():  # in the order of the layers
        if path not in modules or not isinstance(module, nn.Linear):
            continue
        size, last = (module.in_features, module.out_features), path.rpartition(".")[2]
        group, number = last, 1
        while sizes.setdefault(group, size) != size:
            number += 1
            group = f"{last}_{number}"
        groups.setdefault(group, []).append(path)
    if absent := sorted(modules - {path for paths in groups.values() for path in paths}):
        raise BadCheckpoint(f"an adapter changes {absent[0]}, which is no Linear of its part")
    return groups, sizes


def _fit(
    linear: nn.Module, path: str, begin: str, layer: int, now: dict[str, Tensor], met: set[str]
) -> None:
    def term(x: Tensor) -> Tensor | None:
        met.add(path)
        if f"{begin}.down" not in now:
            return None
        return (x @ now[f"{begin}.down"][layer]) @ now[f"{begin}.up"][layer]

    def beside(_: nn.Module, args: tuple[Tensor, ...], y: Tensor) -> Tensor:
        more = term(args[0])
        return y if more is None else y + more

    linear.__dict__[TERM] = term
    linear.register_forward_hook(beside)


def check(part: Wrapper, name: str) -> None:
    """Refuse slots that the part went by when it was called: it computes these Linears otherwise.

    Raises:
        BadCheckpoint: naming the first.
    """
    every = {path for paths in part.__dict__.get("slots", {}).values() for path in paths}
    if passed := sorted(every - part.__dict__.get("slots_met", set())):
        raise BadCheckpoint(
            f"part {name} computes {passed[0]} in another form, which takes no adapter at "
            "run time; merge the adapter"
        )


def joined(y: Tensor, x: Tensor, linears: Sequence[nn.Linear]) -> Tensor:
    """y of several Linears side by side, computed of their joined weights, with what slots add."""
    terms = [_term(linear, x) for linear in linears]
    if all(term is None for term in terms):
        return y
    pieces = y.split([linear.out_features for linear in linears], -1)
    pairs = zip(pieces, terms, strict=True)
    return torch.cat([a if b is None else a + b for a, b in pairs], -1)


def _term(linear: nn.Module, x: Tensor) -> Tensor | None:
    term = linear.__dict__.get(TERM)
    return None if term is None else term(x)


def named(
    groups: Groups, names: Mapping[str, tuple[str, ...]]
) -> dict[str, tuple[tuple[str, ...], ...]]:
    """The groups for the manifest: of every Linear the names that an adapter's file may have."""
    return {group: tuple(names[path] for path in paths) for group, paths in groups.items()}
