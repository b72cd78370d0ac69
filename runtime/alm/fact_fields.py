"""How a fact is declared, read from a manifest and written to one; `alm.facts` has them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, Field, field, fields
from typing import Any, TypeVar

from alm.parsing import MOST_INT, Misshapen, all_of, count, need

MOST_ENTRIES = 4096  # of a list

SectionT = TypeVar("SectionT")


def fact(
    meaning: str,
    default: Any = MISSING,
    *,
    least: int = 0,
    most: int = MOST_INT,
    words: tuple[str, ...] = (),
    needed: bool = False,
    always: bool = False,
) -> Any:
    """A field of a section.

    Args:
        meaning: a line of docs/manifest.md.
        default: what holds where the manifest does not state it; of a dict, an empty one.
        least, most: bounds of a whole number, or of each in a list.
        words: the only strings that are taken, besides "".
        needed: no model runs without it, though a part alone can be looked at.
        always: written even where it is the default.
    """
    metadata = dict(
        meaning=meaning, least=least, most=most, words=words, needed=needed, always=always
    )
    if default is MISSING:
        return field(default_factory=dict, metadata=metadata)
    return field(default=default, metadata=metadata)


def section(
    kind: type[SectionT], plain: Mapping[str, Any], name: str, missing: list[str]
) -> SectionT:
    """The section that a manifest states; needed facts that it lacks are added to `missing`.

    Raises:
        Misshapen: a fact is unknown, of another kind or out of bounds.
    """
    stated = need(plain, name, dict, {}) if spare(kind) else need(plain, name, dict)
    where = f"{name!r}"
    known = {fact.name: fact for fact in fields(kind)}  # pyright: ignore[reportArgumentType]
    if unknown := [key for key in stated if key not in known]:
        raise Misshapen(
            f"{where} states {unknown[0]!r:.80}, which this alm-edge does not know; "
            "upgrade with: pip install -U alm-edge"
        )
    missing += [
        f"{n!r} of {where}" for n, f in known.items() if f.metadata["needed"] and n not in stated
    ]
    return kind(**{n: _value(known[n], stated, n, where) for n in stated})


def spare(kind: type[Any]) -> bool:
    """Whether a manifest may leave the section out: it needs none of its facts."""
    return not any(known.metadata["needed"] for known in fields(kind))


def _value(known: Field[Any], stated: dict[str, Any], name: str, where: str) -> Any:
    """One fact, checked as its declaration says; `known.type` is the annotation's text."""
    least, most, words = (known.metadata[key] for key in ("least", "most", "words"))
    kind, value = str(known.type), stated[name]
    if kind.startswith("int"):
        if value is None and "None" in kind:
            return None
        return count(stated, name, least, where=where, most=most)
    if kind == "bool":
        if not isinstance(value, bool):
            raise Misshapen(f"{name!r} of {where} is {value!r:.80}, neither true nor false")
        return value
    if kind == "str" or kind.startswith("Literal"):
        need(stated, name, str, where=where)
        if words and value not in (words if known.default in words else ("", *words)):
            raise Misshapen(f"{name!r} of {where} is {value!r:.80}, not one of {', '.join(words)}")
        return value
    if kind == "dict[str, str]":
        all_of(list(need(stated, name, dict, where=where).values()), str, name)
        return value
    entry = int if kind == "tuple[int, ...]" else str
    all_of(need(stated, name, list, where=where), entry, name)
    if len(value) > MOST_ENTRIES:
        raise Misshapen(f"{name!r} of {where} has more than {MOST_ENTRIES} entries")
    if entry is int and not all(least <= number <= most for number in value):
        raise Misshapen(f"{name!r} of {where} is out of range: {value!r:.80}")
    return tuple(value)


def plain_of(section: Any) -> dict[str, Any]:
    """The section as plain data, without what is the default."""
    plain: dict[str, Any] = {}
    for known in fields(section):
        value = getattr(section, known.name)
        default = {} if known.default is MISSING else known.default
        if value != default or known.metadata["always"]:
            plain[known.name] = list(value) if isinstance(value, tuple) else value
    return plain
