"""One more of each kind: files that tests lay beside those that are there, and edit no other."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

HERE = Path(__file__).parent


@contextmanager
def one_more(package: ModuleType, name: str, place: Path) -> Iterator[None]:
    """The file `name` of ours, copied into a folder in `place` that `package` has besides its own.

    The folder is the registry: nothing else is told of the file.
    """
    kind = package.__name__.rpartition(".")[2]
    folder = place / f"one_more_{kind}"
    folder.mkdir()
    shutil.copy(HERE / kind / f"{name}.py", folder)
    package.__path__.append(str(folder))
    try:
        yield
    finally:
        package.__path__.remove(str(folder))
        sys.modules.pop(f"{package.__name__}.{name}", None)
        if hasattr(package, name):
            delattr(package, name)
