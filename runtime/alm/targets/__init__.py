"""Where the artifacts will run, one file each.

A file gives the decoder's DIALECT, how many bits a weight has by default (PRECISION) and, for each
role of a part, where they are chosen for it (AUTO), BACKENDS: those whose own operators a graph may
hold, LIMITS: what its backend takes of a graph, and BUILD: how an engine is built (None: graphs run
as they are). It names no lever: which one stores so many bits and is taken here follows from what
the levers state of themselves. On a command line a target's name has hyphens: trt-jetpack6.
"""

from __future__ import annotations

import sys
from types import ModuleType

from alm import registry
from alm.errors import UnknownName
from alm.precision import PLAIN, Levers, Storage, Wanted, choose

DEQUANTIZE = "DequantizeLinear"


def names() -> list[str]:
    """The targets, as they are called on a command line."""
    return [name.replace("_", "-") for name in registry.names(sys.modules[__name__])]


def find(name: str) -> ModuleType:
    """The target of this name; UnknownName lists those there are."""
    if name not in names():
        raise UnknownName(f"unknown target {name!r}; there is: {', '.join(names())}")
    return registry.pick(sys.modules[__name__], name.replace("-", "_"))


def reads(goal: ModuleType, storage: Storage) -> bool:
    """Whether the target's backend has the operators of a graph that is stored so."""
    backend_fits = set(storage.backends) <= set(goal.BACKENDS)
    return backend_fits and all(map(goal.LIMITS.has, storage.operators))


def takes(goal: ModuleType, storage: Storage) -> bool:
    """Whether it reads such a graph, and of the opset that its operators need."""
    newest = goal.LIMITS.newest_opset(DEQUANTIZE in storage.operators)
    return reads(goal, storage) and storage.opset <= newest


def automatic(goal: ModuleType, role: str, levers: Levers) -> str:
    """The precision that the target takes for parts of this role where none is given."""
    return find_lever(goal, role, levers, goal.AUTO[role]) or PLAIN


def find_lever(goal: ModuleType, role: str, levers: Levers, wanted: Wanted) -> str:
    """The precision that stores what is wanted and is taken here; "" where there is none."""
    return choose(levers, role, wanted, lambda storage: takes(goal, storage))
