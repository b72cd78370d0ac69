"""What kind of model a Hugging Face folder holds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def model_type(path: Path) -> str:
    """What the config.json at `path`, or in it, calls the model; "" where nothing does.

    Where the folder holds a PEFT adapter alone it is the config of the adapter's base model.

    Raises:
        MissingFile, BadCheckpoint: there is no such model.
    """
    kind = config(path).get("model_type")
    return kind if isinstance(kind, str) else ""


def config(path: Path) -> dict[str, Any]:
    """The config.json at `path`, or in it; empty where there is none.

    Raises:
        MissingFile, BadCheckpoint: as `model_type`.
    """
    if (path / "adapter_config.json").is_file() and not (path / "config.json").is_file():
        # It imports peft, which takes a second.
        from wrappers.checkpoint.adapters import peft_folder

        path = peft_folder.base_of(path)
    file = path / "config.json" if path.is_dir() else path
    if file.name != "config.json" or not file.is_file():
        return {}
    try:
        plain = json.loads(file.read_bytes())
    except (ValueError, RecursionError):
        return {}
    return plain if isinstance(plain, dict) else {}
