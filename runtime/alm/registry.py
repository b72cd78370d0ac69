"""One way in, by name: a folder of modules is its own registry."""

from __future__ import annotations

import importlib
import pkgutil
from types import ModuleType

from alm.errors import UnknownName


def names(package: ModuleType) -> list[str]:
    """The files in the folder of `package`, sorted; a leading underscore keeps one out."""
    modules = (m.name for m in pkgutil.iter_modules(package.__path__) if not m.ispkg)
    return sorted(name for name in modules if not name.startswith("_"))


def pick(package: ModuleType, name: str, what: str = "") -> ModuleType:
    """The module `name` of `package`.

    The name is checked before the import, so an ImportError inside the module stays one.

    Raises:
        UnknownName: no such module; the message lists those there are.
    """
    known = names(package)
    if name not in known:
        kind = what or package.__name__.rpartition(".")[2].rstrip("s")
        raise UnknownName(f"unknown {kind} {name!r}; there is: {', '.join(known)}")
    return importlib.import_module(f"{package.__name__}.{name}")
