"""Where a folder's files keep a chat template, and what it may use."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from wrappers.checkpoint.plain_files import read_json


def source_in(file: Path) -> str:
    """The `chat_template` of a JSON file: a text, or the one named default of several."""
    value = read_json(file).get("chat_template") if file.is_file() else None
    if isinstance(value, list):
        named = [entry for entry in value if isinstance(entry, dict)]
        value = {str(entry.get("name")): entry.get("template") for entry in named}
    if isinstance(value, dict):
        value = value.get("default")
    return value if isinstance(value, str) else ""


def variables_of(folder: Path) -> dict[str, str]:
    """bos_token, eos_token and the like, as the tokenizer's files name them."""
    variables: dict[str, str] = {}
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        fields = read_json(folder / name) if (folder / name).is_file() else {}
        for key, value in fields.items():
            text = value.get("content") if isinstance(value, dict) else value
            if key.endswith("_token") and isinstance(text, str):
                variables[key] = text
    return variables


def named_token(said: Mapping[str, Any], name: str) -> str | None:
    """A token that a tokenizer's or a processor's config names, such as `audio_token`."""
    extra = said.get("extra_special_tokens")
    token = (extra.get(name) if isinstance(extra, dict) else None) or said.get(name)
    token = token.get("content") if isinstance(token, dict) else token
    return token if isinstance(token, str) else None
