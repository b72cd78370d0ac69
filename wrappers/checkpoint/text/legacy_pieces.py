"""The tokenizer of transformers up to 4.33 for a sentencepiece model with added tokens.

A text is split at added tokens and white space beside them is dropped; each piece that is left is
encoded on its own, with a leading space of its own. Later versions keep the white space, and give
other ids from the first added token on.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from alm.errors import BadCheckpoint, MissingFile
from wrappers.checkpoint.plain_files import read_json, refuse_pointer
from wrappers.checkpoint.text import tokenizer_files

ADDED, MODEL = "added_tokens.json", "tokenizer.model"


def tokenizer(folder: Path, texts: Iterable[str]) -> Tokenizer:
    """The tokenizer.model and added_tokens.json of a folder.

    Args:
        folder: of the LLM.
        texts: on which it must agree with sentencepiece, besides those that all must.

    Raises:
        MissingFile: one of the two is not there.
        BadCheckpoint: they are none, or what is made of them does not agree.
    """
    pieces, file = folder / MODEL, folder / ADDED
    for path in (pieces, file):
        if not path.is_file():
            raise MissingFile(f"there is no file {path}, which the original's tokenizer reads")
        refuse_pointer(path)
    settings = folder / "tokenizer_config.json"
    if settings.is_file() and read_json(settings).get("legacy") is False:
        raise BadCheckpoint(
            f"{settings} says legacy: False, and the original's tokens are those of the legacy one"
        )
    added = read_json(file)
    if wrong := [token for token, number in added.items() if type(number) is not int or not token]:
        raise BadCheckpoint(f"{file} gives {wrong[0]!r:.60} the id {added[wrong[0]]!r:.60}")
    numbers = sorted(added.values())
    if numbers and numbers != list(range(numbers[0], numbers[0] + len(numbers))):
        raise BadCheckpoint(f"{file} gives {len(numbers)} tokens ids that do not follow each other")
    made = _made(tokenizer_files.tokenizer_json(folder, ()), added)
    for text in (*tokenizer_files.PROBES, *texts):
        if made.encode(text, add_special_tokens=False).ids != _truth(pieces, added, text):
            raise BadCheckpoint(
                f"{pieces} could not be converted: what was made of it and sentencepiece disagree "
                f"on {text!r:.80}"
            )
    return made


def _made(plain_text: str, added: Mapping[str, int]) -> Tokenizer:
    plain: dict[str, Any] = json.loads(plain_text)
    kept = [token for token in plain["added_tokens"] if token["content"] not in added]
    sides = dict(single_word=False, lstrip=True, rstrip=True, normalized=False, special=False)
    kept += [{"id": number, "content": token} | sides for token, number in added.items()]
    plain["added_tokens"] = sorted(kept, key=lambda token: token["id"])
    plain["pre_tokenizer"] = None
    marks = [
        {"type": "Prepend", "prepend": "▁"},
        {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
    ]
    plain["normalizer"] = {"type": "Sequence", "normalizers": marks}
    return Tokenizer.from_str(json.dumps(plain))


def _truth(pieces: Path, added: Mapping[str, int], text: str) -> list[int]:
    """What the rule gives, by sentencepiece itself."""
    from sentencepiece import SentencePieceProcessor

    encoder: Any = SentencePieceProcessor(model_file=str(pieces))  # pyright: ignore
    longest_first = sorted(added, key=len, reverse=True)
    split = re.split("(" + "|".join(map(re.escape, longest_first)) + ")", text)
    ids: list[int] = []
    for i, piece in enumerate(split):
        if i % 2:
            ids.append(added[piece])
            continue
        piece = piece.lstrip() if i else piece
        piece = piece.rstrip() if i + 1 < len(split) else piece
        ids += encoder.encode(piece) if piece else []
    return ids
