"""What kind of model a Hugging Face folder holds."""

from __future__ import annotations

import json
from pathlib import Path


def model_type(path: Path) -> str:
    """What the config.json at `path`, or in it, calls the model; "" where nothing does.

    Where the folder holds a PEFT adapter alone it is the config of the adapter's base model.

    Raises:
        MissingFile, BadCheckpoint: there is no such model.
    """
    if (path / "adapter_config.json").is_file() and not (path / "config.json").is_file():
        # It imports peft, which takes a second.
        from wrappers.checkpoint.adapters import peft_folder

        path = peft_folder.base_of(path)
    file = path / "config.json" if path.is_dir() else path
    if file.name != "config.json" or not file.is_file():
        return ""
    try:
        config = json.loads(file.read_bytes())
    except (ValueError, RecursionError):
        return ""
    kind = config.get("model_type") if isinstance(config, dict) else None
    return kind if isinstance(kind, str) else ""
