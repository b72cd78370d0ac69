"""What was found out once, kept for next time: small JSON files in the user's cache folder."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any


def folder() -> Path:
    """Where they lie; RuntimeError where the system knows no home."""
    if own := os.environ.get("ALM_CACHE"):
        return Path(own)
    shared = os.environ.get("XDG_CACHE_HOME")
    base = Path(shared) if shared else Path.home() / ".cache"
    return base / "alm-edge"


def recall(name: str) -> dict[str, Any]:
    """All that the file of this name holds; a broken one is empty."""
    try:
        said = json.loads((folder() / name).read_text("utf-8"))
    except (OSError, ValueError, RuntimeError):  # RuntimeError: no home, or nested too deep
        return {}
    return said if isinstance(said, dict) else {}


def remember(name: str, key: str, value: Any, most: int) -> None:
    """Put an entry into the file of this name, which keeps the newest `most`.

    Read again just before: another process may have written meanwhile. If two write at once one
    entry is lost, and is found out once more.
    """
    known = {old: kept for old, kept in recall(name).items() if old != key} | {key: value}
    known = dict(list(known.items())[-most:])
    beside = None
    try:
        file = folder() / name
        file.parent.mkdir(parents=True, exist_ok=True)
        handle, beside = tempfile.mkstemp(prefix=f".{file.stem}-", dir=file.parent)
        with open(handle, "w", encoding="utf-8") as out:
            json.dump(known, out)
        os.replace(beside, file)
    except (OSError, ValueError, RuntimeError):  # a read-only home only costs the time
        if beside is not None:
            Path(beside).unlink(missing_ok=True)
