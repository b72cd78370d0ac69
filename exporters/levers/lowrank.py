"""lowrank: linears of encoders as two narrow products, in the principal components of speech.

What a linear gives for real sound lies close to few directions. They are found by clips, without
training: LITEALLM and LiteASR (see `_principal`). The default share of energy, its rise by the
layers and ranks in steps of 16 are LITEALLM's. Unlike there, a linear stays as it is where its two
factors would take no fewer operations, and components may be shared.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from torch import Tensor

from alm.errors import BadOption
from alm.precision import Storage
from exporters import lazy
from exporters.levers import Embeds, Hear, _moments
from exporters.levers._clusters import Chosen, clusters, fitted
from exporters.levers._principal import (
    INPUTS,
    LAYERS,
    Linear,
    Place,
    Rooted,
    places,
    root_of,
)
from exporters.levers._two_factors import Factors, factors, put
from exporters.matmuls import products
from wrappers import Wrapper
from wrappers.checkpoint.weights.hollow import weight

SHARING = {"none": (), "inputs": (INPUTS,), "layers": (LAYERS,), "both": (INPUTS, LAYERS)}
STILL = 1e-9  # of the mean's square: less energy than that is rounding of float32
MOST = 0.999  # of the energy, where less is asked for; LITEALLM's, as RISE is


@dataclass(frozen=True)
class Lever:
    """Two thirds to a third of an encoder's operations; what is lost depends on the share kept."""

    STORAGE = {"encoder": Storage(bound=0.5, fitted=True)}
    LEAVES_ALONE = (
        "all but encoders; convolutions; attention's own products; linears whose factors would "
        "take no fewer operations, or whose clips are too few to know them by"
    )
    FIRST = True  # of several levers: the others make their codes of the factors

    energy: float = 0.98  # the share that the first layer keeps
    attention: float = 0.0  # the same, of attention's linears alone; 0: as the others
    mlp: float = 0.0  # the same, of all others
    rise: float = 0.009  # how much more the last layer keeps
    size: float = 0.0  # instead: the share of the linears' operations that may be left; 0: any
    below: float = 1.0  # a linear is replaced where its factors take less than that of it
    shared: str = "none"  # whose components may be shared: a key of SHARING
    _factors: dict[str, Factors] = field(default_factory=dict, init=False, repr=False)
    findings: dict[str, Any] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        """Refuse, with BadOption, what is out of range."""
        wrong = [
            f"{name} is between 0 and {most:g}, not {value:g}"
            for name, most in _RANGES.items()
            if not 0 <= (value := getattr(self, name)) <= most
        ]
        if self.energy <= 0 or self.below <= 0:
            wrong.append("energy and below are above 0")
        if self.shared not in SHARING:
            wrong.append(f"shared is one of {', '.join(SHARING)}, not {self.shared!r:.40}")
        if wrong:
            raise BadOption("lowrank: " + "; ".join(wrong))

    def prepare(self, part: Wrapper, embeds: Embeds) -> None:
        """Nothing: without clips no components are known, and the graph stays as it is."""

    def calibrate(self, part: Wrapper, hear: Hear) -> None:
        """Find the components of the part's linears.

        Raises:
            BadOption: the clips are too few for every linear, or no rank is as small as `size`.
        """
        few: list[_moments.Group] = []
        found = clusters(self._rooted(part, hear, few), SHARING[self.shared], self.below)
        if self.size:
            every = list(found)
            energy = fitted(every, self.size, self._shares, self.below) if every else 0.0
            if every and not energy:
                raise BadOption(
                    f"size={self.size:g} is less than the linears can be brought to; take more"
                )
            chosen = [cluster.chosen(self._shares(energy), self.below) for cluster in every]
        else:
            energy = self.energy
            chosen = [cluster.chosen(self._shares(energy), self.below) for cluster in found]
        if few and not chosen:
            group = few[0]
            raise BadOption(
                f"the clips are too few: {group.members[0]} has {group.width} numbers, and to know "
                "how they hang together takes more rows of it than that; give more seconds of sound"
            )
        self._factors.clear()
        for one in chosen:
            self._factors.update(factors(one.bases))
        weights = sum(parameter.numel() for parameter in part.parameters())
        self._say(chosen, energy, weights, sum(len(group.members) for group in few))

    def rewrite(self, model: ir.Model, role: str) -> ir.Model:
        """Change the graph in place."""
        if not self._factors:
            return model
        every = {product.name: product for product in products(model.graph)}
        readers = {name: partial(_weight, product) for name, product in every.items()}
        put(every, self._factors, readers)
        lazy.drop_unused(model.graph)
        return model

    def _rooted(
        self, part: Wrapper, hear: Hear, few: list[_moments.Group]
    ) -> Iterator[Sequence[Rooted]]:
        """Linears and roots of their covariances, group by group; those with `few` rows apart."""
        groups = _moments.groups(part, hear)
        where = places([f"{name}.weight" for group in groups for name in group.members])
        for group, moments in _moments.gather(part, groups, hear):
            if moments.rows < group.width:
                few.append(group)
                continue
            covariance = moments.covariance()
            if not torch.isfinite(covariance).all():
                continue
            root = root_of(covariance)
            made = [
                _linear(part, group, moments.mean, root, where[f"{name}.weight"])
                for name in group.members
            ]
            if moved := [(linear, root) for linear, root in made if _moves(linear)]:
                yield moved

    def _shares(self, energy: float) -> Any:
        """The share of energy that a Linear is to keep, where the first layer's is `energy`."""

        def share(place: Place) -> float:
            of_kind = self.attention if place.attention else self.mlp
            least = energy if self.size else of_kind or energy
            return least + (max(least, min(MOST, least + self.rise)) - least) * place.depth

        return share

    def _say(self, chosen: Sequence[Chosen], energy: float, weights: int, few: int) -> None:
        """What was found, for the manifest; `weights` are those of the part as it is."""
        bases = [basis for one in chosen for basis in one.bases]
        spared = sum(basis.dense - basis.stored(len(basis.kept[0])) for basis in bases)
        self.findings["weights"] = weights - spared
        dense = sum(one.dense for one in chosen)
        self.findings["lowrank"] = {
            "energy": round(energy, 6),
            "operations": round(sum(one.operations for one in chosen) / max(dense, 1), 4),
            "ranks": {n: each.components.shape[1] for n, each in self._factors.items()},
            "shared": [[x.place.name for x in b.linears] for b in bases if len(b.linears) > 1],
            "too_few_rows": few,
        }


_RANGES = dict(energy=1.0, attention=1.0, mlp=1.0, rise=1.0, size=1.0, below=2.0)


def _linear(
    part: Wrapper, group: _moments.Group, mean: Tensor, root: Tensor, place: Place
) -> Rooted:
    """A Linear with the mean and the root of what it gives without its bias, from its group's."""
    matrix = weight(part, place.name)
    outputs, inputs = matrix.shape
    if group.of_input:
        exact = matrix.double()
        mean, root = exact @ mean, exact @ root
    elif part.get_submodule(place.name.removesuffix(".weight")).bias is not None:
        mean = mean - weight(part, place.name.removesuffix("weight") + "bias").double()
    return Linear(place, inputs, outputs, mean, float(root.square().sum())), root


def _moves(linear: Linear) -> bool:
    """Whether what it gives is more than a constant with its rounding."""
    return linear.energy > STILL * float(linear.mean.square().sum())


def _weight(product: Any) -> np.ndarray:
    """W' float32 [out, in] of a product."""
    return product.read().float().numpy()
