"""Engines, one file each: PROVIDERS it drives, `available()` here, and `open_session`.

ON_CPU are those of its providers that run on the processor.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from pathlib import Path
from types import ModuleType

from alm import registry
from alm.errors import MissingEngine, UnknownName
from alm.session import EngineOptions, Session

PREFERRED = "ort"  # the backend that comes first; the others follow by name


def _backends() -> dict[str, ModuleType]:
    """Provider name -> the backend that drives it, in the order of preference."""
    here = sys.modules[__name__]
    names = sorted(registry.names(here), key=lambda name: name != PREFERRED)
    modules = [registry.pick(here, name) for name in names]
    return {provider: module for module in modules for provider in module.PROVIDERS}


def on_cpu(provider: str) -> bool:
    """Whether it runs on the processor: of those, only a trial tells which is the faster one."""
    module = _backends().get(provider)
    return module is not None and provider in module.ON_CPU


def known() -> list[str]:
    """Every provider that some backend drives, installed or not."""
    return list(_backends())


def choose(provider: str, judge: Callable[[Iterable[str]], str] | None = None) -> str:
    """The provider meant by `provider`; "auto" is the first one that is installed.

    Args:
        provider: a provider's name or "auto".
        judge: asked which of the processor's providers to take, the preferred first, where none
            for another device comes before them. An engine is imported when the judge gets to it.

    Raises:
        UnknownName: nobody drives it.
        MissingEngine: "auto", and no engine is installed.
    """
    if provider != "auto":
        if provider not in known():
            raise UnknownName(
                f"unknown provider {provider!r}; there is: auto, {', '.join(known())}"
            )
        return provider
    there = _installed()
    first = next(there)
    if judge is None or not on_cpu(first):
        return first
    return judge(chain([first], filter(on_cpu, there)))


def _installed() -> Iterator[str]:
    """The providers that can be used here; MissingEngine when there are none."""
    missing: MissingEngine | None = None
    none = True
    for name, module in _backends().items():
        try:
            if name in module.available():
                none = False
                yield name
        except MissingEngine as error:
            missing = missing or error
    if none:
        raise missing or MissingEngine("no engine is installed; try: pip install 'alm-edge[ort]'")


def open_session(graph: Path, options: EngineOptions) -> Session:
    """Open a graph with the backend that drives `options.provider`."""
    return _backends()[options.provider].open_session(graph, options)
