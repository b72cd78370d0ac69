"""What the page on adding a family says is in the code."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest

from alm.artifacts.engine_files import Engine, Maker
from alm.artifacts.part import Part
from alm.facts import SECTIONS
from alm.precision import Codes, Storage
from docs import facts
from tests import ROOT
from wrappers import Checkpoint, with_role

PAGE = (ROOT / "docs" / "adding-a-family.md").read_text("utf-8")
LINK = re.compile(r"\]\(\.\./([^)]+)\)")
SMALLEST = "wrappers/families/qwen2_audio.py"


def quotes() -> list[str]:
    return re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


@pytest.mark.parametrize("quote", quotes())
def test_what_is_quoted_is_in_the_file(quote: str) -> None:
    assert quote in (ROOT / SMALLEST).read_text("utf-8")


def test_there_are_quotes_and_the_file_is_a_family() -> None:
    assert len(quotes()) >= 4 and f"../{SMALLEST}" in PAGE
    assert Path(SMALLEST).stem in with_role("family")


def test_the_files_that_it_names_are_there() -> None:
    named = LINK.findall(PAGE) + re.findall(r"`(tests/\w+\.py)`", PAGE)
    assert named and [name for name in named if not (ROOT / name).is_file()] == []


def test_every_field_of_a_checkpoint_is_told() -> None:
    fields = [field.name for field in dataclasses.fields(Checkpoint)]
    assert [name for name in fields if f"| `{name}` |" not in PAGE] == []


def test_the_page_of_facts_is_made_of_their_declarations() -> None:
    assert facts.PAGE.read_text("utf-8") == facts.page()


@pytest.mark.parametrize("kind", [Part, Storage, Codes, Engine, Maker])
def test_the_page_names_every_field_of_a_part(kind: Any) -> None:
    """As JSON has them, where the maker's lie in the engine."""
    names = {field.name for field in dataclasses.fields(kind)} - {"maker"}
    assert {name for name in names if f"`{name}`" not in facts.TAIL} == set()


def test_every_fact_is_read_somewhere() -> None:
    """A fact that nobody reads is a setting that is ignored."""
    source = "".join(path.read_text("utf-8") for path in (ROOT / "runtime" / "alm").rglob("*.py"))
    kinds = [SECTIONS[name] for name in ("prompt", "tokens", "audio")]  # sizes are for people too
    declared = {fact.name for kind in kinds for fact in dataclasses.fields(kind)}
    assert {name for name in declared if not re.search(rf"\.{name}\b", source)} == set()
