"""The page of a model's facts: python docs/facts.py writes docs/manifest.md from declarations."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import MISSING, Field, fields
from pathlib import Path
from typing import Any

from alm.facts import SECTIONS

PAGE = Path(__file__).resolve().parent / "manifest.md"
HEAD = """\
# What a manifest states of a model

`manifest.json` lists the parts of a model with their ports, files and hashes, and the facts below.
A family states them (`Checkpoint.facts`), export writes them, and the runtime reads them and
nothing else of the checkpoint. This page is made of their declarations in
[runtime/alm/facts.py](../runtime/alm/facts.py) by `python docs/facts.py`: one more fact is one more
field there. A fact that is not declared is refused when a manifest is loaded.

Besides these there are `generation`, the original's defaults under the names of transformers'
GenerationConfig; `source` (`config`, `llm`, `adapter`, `fingerprint`), by which parts of two
checkpoints are kept apart; and `licence`, as the checkpoint states it.
"""


def page() -> str:
    """The whole page as Markdown."""
    return "\n".join([HEAD, *(line for name in SECTIONS for line in _section(name))])


def _section(name: str) -> Iterator[str]:
    kind = SECTIONS[name]
    yield f"## `{name}`\n\n{kind.__doc__}\n"
    yield "| fact | type | meaning | bounds | where it is absent |\n|---|---|---|---|---|"
    for fact in fields(kind):
        meaning = fact.metadata["meaning"]
        cells = (f"`{fact.name}`", _type(fact), meaning, _bounds(fact), _absent(fact))
        yield f"| {' | '.join(cells)} |"
    yield ""


def _type(fact: Field[Any]) -> str:
    text = str(fact.type).removesuffix(" | None")
    if text.startswith("Literal"):
        return "str"
    return {"tuple[str, ...]": "list of str", "tuple[int, ...]": "list of int"}.get(text, text)


def _bounds(fact: Field[Any]) -> str:
    if words := fact.metadata["words"]:
        return ", ".join(f"`{word}`" for word in words)
    if "int" in str(fact.type):
        return f"{fact.metadata['least']:,} to {fact.metadata['most']:,}"
    return ""


def _absent(fact: Field[Any]) -> str:
    if fact.metadata["needed"]:
        return "no model runs"
    if fact.default is MISSING or fact.default in ((), "", None):
        return "none"
    return f"`{str(fact.default).lower()}`"


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
