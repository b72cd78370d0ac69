"""What a unit of a part is worth, and which units go: the least worth of a kind, in all layers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from alm.ports import CACHE_OUT
from exporters.levers import Hear
from exporters.levers._structures import CHANNELS, HEADS, Site
from wrappers import Wrapper
from wrappers.layers.decoder_layers import picked

PROJECTIONS = 4  # of what comes out, a clip
LEAST_SIZE = 1e-12  # of what comes out: of less, no share can be told

Scores = dict[str, Tensor]  # by a site's path: float64 [units]
Scale = Callable[[Tensor], Tensor]


def by_weights(part: Wrapper, sites: Sequence[Site]) -> Scores:
    """The mean of |w| over a unit's weights, as a share of its site's mean."""
    return {site.path: _share(site.weights(part).double().abs().mean(1)) for site in sites}


def by_norm(part: Wrapper, sites: Sequence[Site]) -> Scores:
    """The L2 norm of a unit's weights, into it and out of it, as a share of its site's mean."""
    return {site.path: _share(site.weights(part).double().norm(dim=1)) for site in sites}


def _share(values: Tensor) -> Tensor:
    return values / values.mean().clamp(min=1e-30)


def by_taylor(part: Wrapper, sites: Sequence[Site], hear: Hear) -> Scores:
    """How far what the part gives would move without a unit, to first order.

    With r of +1 and -1 by chance, as many as numbers come out, and L = r y / |y|, the sum of
    weight times dL/dweight over the weights out of a unit is the derivative of L by a gate g of
    that unit, 1 as it is. Its square has the mean |dy/dg|^2 / |y|^2 (Hutchinson), which is the
    squared share of y that g = 0 takes, to first order (Molchanov et al. 2019, for a part that has
    no loss of its own). The score is the root of the mean over clips and PROJECTIONS of r each.
    """
    sums: Scores = {site.path: torch.zeros(site.units).double() for site in sites}
    chance, calls = torch.Generator().manual_seed(0), [0]
    forward = part.forward
    gates: dict[str, Tensor] = {}

    def graded(*inputs: Tensor) -> Any:
        gates.update((site.path, torch.ones(site.units, requires_grad=True)) for site in sites)
        with torch.enable_grad():
            made = forward(*inputs)
            outputs = made if isinstance(made, tuple) else (made,)
            y = _floats(part, outputs)
            size = max(float(y.detach().norm()), LEAST_SIZE)
            for _ in range(PROJECTIONS):
                signs = torch.randint(0, 2, y.shape, generator=chance) * 2.0 - 1.0
                loss = (y * signs).sum() / size
                wanted = list(gates.values())
                found = torch.autograd.grad(loss, wanted, retain_graph=True, allow_unused=True)
                for path, slope in zip(gates, found, strict=True):
                    if slope is not None:
                        sums[path] += slope.double().square()
        calls[0] += PROJECTIONS
        plain = tuple(y.detach() for y in outputs)
        return plain if isinstance(made, tuple) else plain[0]

    part.forward = graded
    try:
        with scaled(part, sites, lambda path: gates[path]):
            hear(0)
    finally:
        part.__dict__.pop("forward")
    return {path: (total / max(calls[0], 1)).sqrt() for path, total in sums.items()}


def _floats(part: Wrapper, outputs: Sequence[Tensor]) -> Tensor:
    """What the part gives to others, as one row: no integers, and no state of its own."""
    named = zip(part.outputs, outputs, strict=True)
    floats = [y.flatten() for name, y in named if not name.startswith(CACHE_OUT)]
    return torch.cat([y for y in floats if y.is_floating_point()])


@contextmanager
def scaled(part: Wrapper, sites: Sequence[Site], by: Callable[[str], Tensor]) -> Iterator[None]:
    """Every unit times a number of its own, [units] by the path of its site."""

    def hook(site: Site) -> Callable[..., tuple[Tensor]]:
        return lambda _, inputs: (inputs[0] * by(site.path).repeat_interleave(site.size),)

    handles = [part.get_submodule(site.out).register_forward_pre_hook(hook(site)) for site in sites]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def staying(scores: Scores, sites: Sequence[Site], ratio: float, multiple: int) -> Scores:
    """The units of each site that stay: of each kind at most `ratio` goes, the least worth first.

    One unit of a site always stays, and of channels a multiple of `multiple`, as far as there are
    so many: those that were worth most come back.
    """
    kept: Scores = {}
    for kind in (HEADS, CHANNELS):
        of_kind = [site for site in sites if site.kind == kind]
        counts = {site.path: site.units for site in of_kind}
        go = int(ratio * sum(counts.values()) + 1e-9)
        ranked = sorted(
            (float(score), number, site.path)
            for number, site in enumerate(of_kind)
            for score in scores[site.path]
        )
        for _, _, path in ranked:
            if go and counts[path] > 1:
                counts[path], go = counts[path] - 1, go - 1
        for site in of_kind:
            count = counts[site.path]
            if kind == CHANNELS:
                count = min(site.units, -(-count // multiple) * multiple)
            best = scores[site.path].argsort(descending=True, stable=True)[:count]
            kept[site.path] = best.sort().values
    return kept


def layers_of(part: Wrapper, sites: Sequence[Site]) -> list[str]:
    """Paths of the layers: items of lists that hold a site, in their order."""
    lists = [n for n, m in part.named_modules() if isinstance(m, nn.ModuleList)]
    items = [f"{n}.{i}" for n in lists for i in range(len(part.get_submodule(n)))]  # pyright: ignore
    return [path for path in items if any(site.path.startswith(f"{path}.") for site in sites)]


def likeness(
    part: Wrapper, paths: Sequence[str], hear: Hear
) -> tuple[dict[str, float], Mapping[str, tuple[int, ...]]]:
    """How alike what goes into each layer is to what comes out, and what it hands on unchanged.

    Likeness is the mean cosine over all frames of all clips (ShortGPT's block influence is 1 less
    it). The second has, for each layer that another can do without, its inputs in the order of
    what it gives: the residual stream, and what it gave back as it got it.
    """
    sums, rows = dict.fromkeys(paths, 0.0), dict.fromkeys(paths, 0)
    gives: dict[str, tuple[int, ...] | None] = {}

    def hook(path: str) -> Callable[..., None]:
        def seen(_: nn.Module, inputs: Any, told: dict[str, Any], made: Any) -> None:
            outputs = made if isinstance(made, tuple) else (made,)
            x, y = picked(inputs[0], told.get("rows")).double(), outputs[0].double()
            sums[path] += float(nn.functional.cosine_similarity(x, y, dim=-1).sum())
            rows[path] += y[..., 0].numel()
            same = [
                next((i for i, one in enumerate(inputs) if one is other), None)
                for other in outputs[1:]
            ]
            now = None if None in same else (0, *(i for i in same if i is not None))
            gives[path] = now if gives.setdefault(path, now) == now else None

        return seen

    handles = [
        part.get_submodule(path).register_forward_hook(hook(path), with_kwargs=True)
        for path in paths
    ]
    try:
        hear(0)
    finally:
        for handle in handles:
            handle.remove()
    found = {path: sums[path] / max(rows[path], 1) for path in paths}
    return found, {path: how for path, how in gives.items() if how is not None}
