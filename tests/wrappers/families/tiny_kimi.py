"""A tiny random Kimi-Audio as the hub lays it out, and its Whisper and tokenizer of sound.

tests/data/kimi_audio holds it with what the authors' code computed of it.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from tests.reference import DATA

GOLDEN = DATA / "kimi_audio"
MODEL, WHISPER, CODES = "model", "model/whisper-large-v3", "glm-4-voice-tokenizer"


def make(folder: Path) -> Path:
    """A copy in `folder`; gives that of the model, beside which the tokenizer of sound lies."""
    for name in (MODEL, CODES):
        shutil.copytree(GOLDEN / name, folder / name, copy_function=shutil.copyfile)
    return folder / MODEL


def said(folder: Path, where: str, **changes: Any) -> Path:
    """The model's folder, the config.json in `where` having other values; None takes one out."""
    file = folder / where / "config.json"
    plain = json.loads(file.read_text()) | changes
    file.write_text(json.dumps({name: value for name, value in plain.items() if value is not None}))
    return folder / MODEL
