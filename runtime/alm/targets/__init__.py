"""Where the artifacts will run, one file each.

A file says the decoder's DIALECT, the default PRECISION, what AUTO is for each role of a part,
ENGINES: those whose own operators a graph may hold, PRECISIONS: those that it takes, with the
bytes that each stores a weight in (none listed: all), LIMITS: what its engine takes of a graph, and
BUILD: how an engine is built (None: graphs run as they are). On a command line its name has
hyphens: trt-jetpack6.
"""

from __future__ import annotations

import sys
from types import ModuleType

from alm import registry
from alm.errors import UnknownName


def names() -> list[str]:
    """The targets, as they are called on a command line."""
    return [name.replace("_", "-") for name in registry.names(sys.modules[__name__])]


def find(name: str) -> ModuleType:
    """The target of this name; UnknownName lists those there are."""
    if name not in names():
        raise UnknownName(f"unknown target {name!r}; there is: {', '.join(names())}")
    return registry.pick(sys.modules[__name__], name.replace("-", "_"))
