"""Precisions as they are given on the command line: a lever's name, or several joined by +.

A lever's own settings stand behind it, `NAME:setting=value:other=value`: they are the fields of its
dataclass, with their defaults where they are not given.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import onnx_ir as ir
from torch import Tensor

from alm import registry
from alm.errors import BadOption, UnknownName
from alm.precision import PLAIN, PLAINEST, Codes, Levers, Storage, joined
from exporters import levers
from exporters.levers import Embeds, Hear
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

    def shrinks(self, role: str) -> bool:
        """Whether a lever leaves something out of parts of this role."""
        return any(role in lever.STORAGE for lever in self._shrinkers)

    def shrink(
        self, part: Wrapper, embeds: Embeds, hear: Hear | None
    ) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Leave out what levers leave out: what ports still hold, and what was found out."""
        kept: dict[str, Tensor] = {}
        findings: dict[str, Any] = {}
        for lever in self._shrinkers:
            kept |= lever.shrink(part, embeds, hear)
            findings |= lever.findings
        return kept, findings

    def prepare(self, part: Wrapper, embeds: Embeds) -> None:
        """Before the part is traced."""
        for lever in self.levers:
            lever.prepare(part, embeds)

    def listens(self, role: str) -> bool:
        """Whether a lever must hear clips to change parts of this role."""
        return bool(self._listeners(role)) or any(lever.hears(role) for lever in self._shrinkers)

    def hears(self, role: str) -> bool:
        """Whether parts of this role are at least compared on clips, where there are any."""
        return self.listens(role) or role == "encoder" and self.shrinks(role)

    def calibrate(self, part: Wrapper, hear: Hear) -> dict[str, Any]:
        """After `prepare`, where a lever listens: run the part on clips; what was found out."""
        findings: dict[str, Any] = {}
        for lever in self._listeners(part.role):
            lever.calibrate(part, hear)
            findings |= lever.findings
        return findings

    def _listeners(self, role: str) -> list[Any]:
        return [lever for lever in self.levers if lever.STORAGE.get(role, PLAINEST).fitted]

    @property
    def _shrinkers(self) -> list[Any]:
        return [lever for lever in self.levers if hasattr(lever, "shrink")]

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
        BadOption: a setting that the lever has not, or that is out of its range.
    """
    made = [_made(word) for word in ([] if precision == PLAIN else precision.split("+"))]
    if sum(hasattr(lever, "shrink") for lever in made) > 1:
        raise BadOption(f"{precision[:80]} leaves out something twice; say all of it in one lever")
    return Pulled(tuple(sorted(made, key=lambda lever: not getattr(lever, "FIRST", False))))


def lever_of(word: str) -> str:
    """The lever's name, without its settings."""
    return word.partition(":")[0]


def _made(word: str) -> Any:
    """The lever of a word such as NAME or NAME:setting=value."""
    name, *settings = word.split(":")
    if name not in registry.names(levers):
        raise UnknownName(f"unknown precision {name!r}; there is: {', '.join(known())}")
    kind = registry.pick(levers, name, "precision").Lever
    # Fields of other types are set by levers that are made of others, and are no words of a person.
    plain = [f for f in fields(kind) if f.init and isinstance(f.default, str | int | float)]
    usual = {f.name: f.default for f in plain}
    given: dict[str, Any] = {}
    for setting in settings:
        key, _, value = setting.partition("=")
        if key not in usual:
            there = f"there is: {', '.join(usual)}" if usual else f"{name} has none"
            raise BadOption(f"unknown setting {key[:80]!r} of {name}; {there}")
        if key in given:
            raise BadOption(f"{name} has its setting {key} twice")
        try:
            given[key] = type(usual[key])(value)
        except ValueError:
            raise BadOption(f"{key} of {name} is a number, not {value[:80]!r}") from None
    return kind(**given)
