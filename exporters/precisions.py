"""Precisions as they are given on the command line: a lever's name, or several joined by +."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import onnx_ir as ir

from alm import registry
from alm.errors import UnknownName
from alm.precision import PLAIN, PLAINEST, Codes, Levers, Storage, joined
from exporters import levers
from exporters.levers import Embeds
from wrappers import Wrapper

AUTO = "auto"


@dataclass(frozen=True)
class Pulled:
    """Levers pulled one after another; none of them is fp32."""

    levers: tuple[Any, ...]

    def storage(self, role: str) -> Storage:
        """What all together make of a part of this role."""
        return joined(lever.STORAGE.get(role, PLAINEST) for lever in self.levers)

    def bound(self, role: str) -> float:
        """The most that all together may cost a part, as `parity.Parity.rms`.

        0 where none of them changes parts of this role, which must be exact.
        """
        return self.storage(role).bound

    @property
    def table(self) -> Codes | None:
        """How the embedding table is stored; None for as exactly as it came."""
        every = (lever.STORAGE.get("table", PLAINEST).layers for lever in self.levers)
        return next((codes for codes in every if codes != PLAINEST.layers), None)

    @property
    def backends(self) -> set[str]:
        """The backends that alone run what comes out for some role; empty for any."""
        every = (storage for lever in self.levers for storage in lever.STORAGE.values())
        return {backend for storage in every for backend in storage.backends}

    def prepare(self, part: Wrapper, embeds: Embeds) -> None:
        """Before the part is traced."""
        for lever in self.levers:
            lever.prepare(part, embeds)

    def rewrite(self, model: ir.Model, role: str) -> ir.Model:
        """The graph after every lever."""
        for lever in self.levers:
            model = lever.rewrite(model, role)
        return model


def known() -> list[str]:
    """fp32, auto, and every lever."""
    return [PLAIN, AUTO, *registry.names(levers)]


def declared() -> Levers:
    """What every lever declares to store and need, by its name and by role: for the manifest."""
    names = registry.names(levers)
    return {name: registry.pick(levers, name, "precision").Lever.STORAGE for name in names}


def pull(precision: str) -> Pulled:
    """The levers that a precision such as int4+kv8 names.

    Raises:
        UnknownName: one of them is none.
    """
    names = [] if precision == PLAIN else precision.split("+")
    for name in names:
        if name not in registry.names(levers):
            raise UnknownName(f"unknown precision {name!r}; there is: {', '.join(known())}")
    return Pulled(tuple(registry.pick(levers, name, "precision").Lever() for name in names))
