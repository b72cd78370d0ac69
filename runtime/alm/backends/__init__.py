"""Engines, one file each: PROVIDERS it drives, `available()` here, and `open_session`."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

from alm import pick
from alm.backends._session import EngineOptions, Session
from alm.errors import MissingEngine, UnknownName


def _backends() -> dict[str, ModuleType]:
    """Provider name -> the backend that drives it, in the order of preference."""
    here = sys.modules[__name__]
    modules = [pick.pick(here, name) for name in pick.names(here)]
    return {provider: module for module in modules for provider in module.PROVIDERS}


def known() -> list[str]:
    """Every provider that some backend drives, installed or not."""
    return list(_backends())


def choose(provider: str) -> str:
    """The provider meant by `provider`; "auto" is the first one that is installed.

    Raises:
        UnknownName: nobody drives it.
        MissingEngine: "auto", and no engine is installed.
    """
    backends = _backends()
    if provider != "auto":
        if provider not in backends:
            raise UnknownName(
                f"unknown provider {provider!r}; there is: auto, {', '.join(backends)}"
            )
        return provider
    missing: MissingEngine | None = None
    for name, module in backends.items():
        try:
            if name in module.available():
                return name
        except MissingEngine as error:
            missing = error
    raise missing or MissingEngine("no engine is installed; try: pip install 'alm-edge[ort]'")


def open_session(graph: Path, options: EngineOptions) -> Session:
    """Open a graph with the backend that drives `options.provider`."""
    return _backends()[options.provider].open_session(graph, options)
