"""Names for tokens that an LLM's table has rows for and its tokenizer does not: units of sound.

A name stands in the vocabulary alone. No merge makes it, so that no text becomes such a token,
however it is spelled; an answer that holds the token is written with its name.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from tokenizers import Tokenizer

from alm.errors import BadCheckpoint
from wrappers.checkpoint.text.tokenizer_files import PROBES

NAME = "<unit_{}>"


def name(unit: int) -> str:
    """How a unit is written."""
    return NAME.replace("{}", str(unit))


def named(tokenizer_json: str, first: int, count: int, where: str, texts: Iterable[str]) -> str:
    """The text of a tokenizer.json that writes the tokens from `first` on by their names.

    Args:
        tokenizer_json: of the LLM, without tokens of these ids.
        first, count: the tokens of units.
        where: the tokenizer's folder, for messages.
        texts: which become the tokens that they were before.

    Raises:
        BadCheckpoint: a tokenizer of another kind, a name that is taken, or one that is not
            written as it is or that a text becomes.
    """
    plain: dict[str, Any] = json.loads(tokenizer_json)
    model = plain["model"]
    if model.get("type") != "BPE":
        raise BadCheckpoint(
            f"the tokenizer in {where} is a {model.get('type')}, and names for units are given to "
            "byte pairs alone; say audio_answers: masked"
        )
    before = Tokenizer.from_str(tokenizer_json)
    names = {name(unit): first + unit for unit in range(count)}
    if taken := [text for text in names if before.token_to_id(text) is not None]:
        raise BadCheckpoint(
            f"the tokenizer in {where} has a token {taken[0]}, which is a unit's name; say units: "
            f"{NAME!r} in the place of offset"
        )
    model["vocab"] |= names
    made = Tokenizer.from_str(json.dumps(plain))
    spelled = "".join(names)
    for text in (*PROBES, *texts, spelled):
        if _ids(made, text) != _ids(before, text):
            raise BadCheckpoint(
                f"the tokenizer in {where} would read {text!r:.60} as units once they have names; "
                "say audio_answers: masked"
            )
    if odd := [text for text, number in names.items() if made.decode([number]) != text]:
        raise BadCheckpoint(
            f"the tokenizer in {where} would write the unit {odd[0]} as "
            f"{made.decode([names[odd[0]]])!r:.60}; say audio_answers: masked"
        )
    return made.to_str()


def _ids(tokenizer: Tokenizer, text: str) -> list[int]:
    return tokenizer.encode(text, add_special_tokens=False).ids
