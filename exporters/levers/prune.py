"""prune: heads, MLP channels and whole layers left out, so that a smaller dense graph remains.

What goes is what is worth least by the size of its weights or by what it does to the part's
output on clips (see `_scores`). Nothing is trained afterwards.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from torch import Tensor

from alm.errors import BadOption
from alm.golden.vectors import errors
from alm.ports import CACHE_OUT
from alm.precision import Storage
from exporters.calibration import COMPARED
from exporters.levers import Embeds, Hear
from exporters.levers._scores import (
    Scores,
    by_norm,
    by_taylor,
    by_weights,
    layers_of,
    likeness,
    scaled,
    staying,
)
from exporters.levers._shrink import shrink
from exporters.levers._structures import Site, sites
from wrappers import Wrapper
from wrappers.layers.decoder import Decoder

BY = ("weights", "l2", "taylor")
MOST = 0.95  # of a kind, where a budget says how many
STEPS = 8  # of the search for a budget's ratio
ROWS = 24  # of embeddings that a decoder is shown at a time


@dataclass(frozen=True)
class Lever:
    """A fifth of heads and MLPs goes by itself; what is lost depends on the model alone."""

    STORAGE = {"encoder": Storage(bound=1.0), "decoder": Storage(bound=1.4)}
    LEAVES_ALONE = (
        "front ends, bridges and the table; convolutions; experts; heads under a norm over all of "
        "them (Olmo 2), behind a carried state (Voxtral Realtime's encoder) or that each see their "
        "own share of the input (WavLM)"
    )
    FIRST = True  # of several levers

    ratio: float = 0.2  # of heads, and of channels, that go at most
    by: str = "l2"  # one of BY
    layers: float = 0.0  # whole layers that go: so many, or a share below 1
    budget: float = 0.0  # instead of a ratio: the rms that the part may be off on clips; 0: none
    multiple: int = 8  # of the channels that stay in an MLP
    findings: dict[str, Any] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        """Refuse, with BadOption, what is out of range."""
        wrong = []
        if not 0 <= self.ratio < 1:
            wrong.append(f"ratio is 0 or more and below 1, not {self.ratio:g}")
        if self.by not in BY:
            wrong.append(f"by is one of {', '.join(BY)}, not {self.by!r:.40}")
        if not 0 <= self.layers < 10_000 or self.layers >= 1 and self.layers % 1:
            wrong.append(f"layers is a whole number or a share below 1, not {self.layers:g}")
        if not 0 <= self.budget <= 1:
            wrong.append(f"budget is between 0 and 1, not {self.budget:g}")
        if not 1 <= self.multiple <= 1024:
            wrong.append(f"multiple is 1 to 1024, not {self.multiple}")
        if wrong:
            raise BadOption("prune: " + "; ".join(wrong))

    def hears(self, role: str) -> bool:
        """Whether it wants clips for parts of this role; decoders are shown embeddings instead."""
        return role == "encoder" and bool(self.by == "taylor" or self.layers or self.budget)

    def prepare(self, part: Wrapper, embeds: Embeds) -> None:
        """Nothing: all is done in `shrink`."""

    def shrink(self, part: Wrapper, embeds: Embeds, hear: Hear | None) -> dict[str, Tensor]:
        """Cut the part in place.

        Args:
            part: that others have asked what they want to know of it as it was.
            embeds: embeddings of tokens, that a decoder is shown in the place of clips.
            hear: see the package; None where there are no clips.

        Returns:
            The heads of the whole that each port of a decoder's cache still holds.

        Raises:
            BadOption: more layers than there are, or that cannot be left out.
        """
        told = _shown(part, embeds) if isinstance(part, Decoder) else hear
        if told is None and self.hears(part.role):
            raise BadOption("prune: by=taylor, layers and budget are of what is heard; give clips")
        whole = sum(weight.numel() for weight in part.parameters())
        truth = _Truth(part, told) if self.budget and told else None
        gone, alike = self._without_layers(part, told)
        every = sites(part)
        scores = self._scores(part, every, told)
        ratio = self.ratio
        if truth:
            ratio = self._fitted(part, every, scores, truth)
        kept = staying(scores, every, ratio, self.multiple)
        of_units = {site.path: [len(kept[site.path]), site.units] for site in every}
        ports = shrink(part, every, kept, {})
        left = sum(weight.numel() for weight in part.parameters())
        self.findings["prune"] = {
            "by": self.by,
            "ratio": round(ratio, 4),
            "weights": round(left / max(whole, 1), 4),
            "kept": of_units,
            "layers": gone,
            "likeness": alike,
        }
        if isinstance(part, Decoder):  # what the manifest's facts say of the widest layer
            sizes = {"heads": part.spec.heads, "kv_heads": part.spec.kv_heads}
            self.findings["dimensions"] = sizes
        return ports

    def rewrite(self, model: ir.Model, role: str) -> ir.Model:
        """Nothing: the graph was traced without what went."""
        return model

    def _without_layers(
        self, part: Wrapper, hear: Hear | None
    ) -> tuple[list[str], dict[str, float]]:
        """Leave out the layers that change least; their paths, and how alike all were."""
        if not self.layers or hear is None:
            return [], {}
        paths = layers_of(part, sites(part))
        count = int(self.layers if self.layers >= 1 else self.layers * len(paths) + 1e-9)
        if count >= max(len(paths), 1):
            raise BadOption(f"layers={self.layers:g} is all of {len(paths)} layers; leave one")
        alike, gives = likeness(part, paths, hear)
        usable = paths if isinstance(part, Decoder) else [p for p in paths if p in gives]
        if count > len(usable):
            raise BadOption(
                f"layers={self.layers:g} of {len(paths)} cannot be left out: only {len(usable)} "
                "hand on nothing but what they were given"
            )
        gone = sorted(usable, key=lambda path: -alike[path])[:count]
        gone = [path for path in paths if path in gone]
        shrink(part, [], {}, {path: gives.get(path, (0,)) for path in gone})
        return gone, {path: round(value, 4) for path, value in alike.items()}

    def _scores(self, part: Wrapper, every: Sequence[Site], hear: Hear | None) -> Scores:
        if self.by == "taylor" and hear is not None:
            return by_taylor(part, every, hear)
        return (by_weights if self.by == "weights" else by_norm)(part, every)

    def _fitted(self, part: Wrapper, every: Sequence[Site], scores: Scores, truth: _Truth) -> float:
        """The largest ratio, to a step of 2^-STEPS, at which the part is within the budget."""

        def off(ratio: float) -> float:
            kept = staying(scores, every, ratio, self.multiple)
            masks = {site.path: torch.zeros(site.units) for site in every}
            for path, units in kept.items():
                masks[path][units] = 1.0
            with scaled(part, every, masks.__getitem__):
                return truth.off(part)

        low, high = 0.0, MOST
        if (least := off(low)) > self.budget:
            raise BadOption(
                f"budget={self.budget:g} is less than the {least:.2g} that the layers which were "
                "left out cost alone; leave out fewer"
            )
        for _ in range(STEPS):
            middle = (low + high) / 2
            low, high = (middle, high) if off(middle) <= self.budget else (low, middle)
        return low


class _Truth:
    """What a part gives on a few clips as it is."""

    def __init__(self, part: Wrapper, hear: Hear) -> None:
        self.feeds: list[tuple[Tensor, ...]] = []
        handle = part.register_forward_pre_hook(lambda _, inputs: self.feeds.append(inputs))
        try:
            hear(COMPARED)
        finally:
            handle.remove()
        self.wanted = [_asked(part, feed) for feed in self.feeds]
        self.inputs = list(part.inputs)

    def off(self, part: Wrapper) -> float:
        """The worst rms of the errors as a share of that of what was wanted, as parity has it."""
        worst = 0.0
        for feed, want in zip(self.feeds, self.wanted, strict=True):
            named = dict(zip(self.inputs, feed, strict=True))
            made = _asked(part, tuple(named[name] for name in part.inputs))
            worst = max(worst, *(errors(a, b)[1] for a, b in zip(made, want, strict=True)))
        return worst


def _asked(part: Wrapper, feed: tuple[Tensor, ...]) -> list[np.ndarray]:
    """What the part gives to others, float64."""
    with torch.no_grad():
        made = part(*feed)
    named = zip(part.outputs, made if isinstance(made, tuple) else (made,), strict=True)
    return [y.double().numpy() for name, y in named if not name.startswith(CACHE_OUT)]


def _shown(part: Decoder, embeds: Embeds) -> Hear:
    """Embeddings of words as a decoder meets them, ROWS at a time, in the place of clips."""

    def run(count: int) -> None:
        every = embeds().float().split(ROWS)
        for rows in every[: count or None]:
            lengths = torch.tensor([0]), torch.tensor([len(rows)])
            with torch.no_grad():
                part(rows[None], *lengths, *part.fresh(1, len(rows)))

    return run
