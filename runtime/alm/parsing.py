"""Plain data of a JSON file, read with what it should be: a number, a name, a file."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from alm.errors import BadArtifacts, BadOption

MOST_INT = 2**63 - 1
MOST_DIGITS = 4000  # Python refuses more, but only from 3.10.7 on
MOST_FLOAT = 1e30  # a loss or a time; beyond it float32 overflows in the next product
MOST_DEEP = 32  # lists and objects in each other
MOST_VALUES = 500_000
MOST_LETTERS = 100_000  # of one string: a prompt's, the longest that there is
MOST_NAME = 1_000  # of a key: a tensor's or a task's name
# Unicode's controls, which terminals obey: of colours and cursors, and of the direction of writing.
CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


class Misshapen(BadArtifacts):
    """Something in the manifest is missing or of another kind than it should be."""


SURROGATE = re.compile("[\ud800-\udfff]")


def printable(text: object, most: int = 0) -> str:
    """`text` as a terminal may show it: one line, no control characters, no lone surrogates.

    With `most` a longer text is cut to so many characters, its end marked by an ellipsis.
    """
    shown = str(text)
    if most and len(shown) > most:
        shown = shown[: most - 1] + "\N{HORIZONTAL ELLIPSIS}"
    return CONTROL.sub("\N{REPLACEMENT CHARACTER}", shown)


def is_panic(error: BaseException) -> bool:
    """Whether this is a panic of Rust: a BaseException whose class cannot be imported."""
    return type(error).__name__ == "PanicException"


def check_name(name: str) -> None:
    """Refuse, with BadArtifacts, a name that could mean a file outside its folder.

    A name is parts joined by "/", the same on every system: relative, and no part "", "." or "..".
    """
    rules = (
        (not name, "a name must not be empty"),
        ("\0" in name, "a name must not hold NUL"),
        ("\\" in name, "a name must not hold a backslash; parts are joined by '/'"),
        (name.startswith("/"), "a path must not be absolute"),
        (":" in name, "a name must not hold a colon (a drive or a stream on Windows)"),
        (".." in name.split("/"), "a path must not go up with '..'"),
        (not {"", "."}.isdisjoint(name.split("/")), "a path must not have empty or '.' parts"),
    )
    for broken, rule in rules:
        if broken:
            raise BadArtifacts(f"the file name {name[:200]!r} is refused: {rule}")


def parse(text: str) -> Any:
    """JSON whose values are all within the limits above: numbers, strings, depth and count.

    Raises:
        ValueError, RecursionError: it is no JSON.
        Misshapen: a value is beyond a limit; the message says where.
    """
    plain = json.loads(text, parse_int=_whole, parse_float=_finite, parse_constant=_no_number)
    _check_values(plain)
    return plain


def _whole(word: str) -> int:
    return int(word) if len(word) <= MOST_DIGITS else int(_no_number(word))


def _finite(word: str) -> float:
    return value if math.isfinite(value := float(word)) else _no_number(word)


def _no_number(word: str) -> float:
    raise ValueError(f"{word:.40} is no finite number")


def _check_values(plain: Any) -> None:
    """Walk through all values, level by level: a recursion would end at Python's own limit."""
    level: list[tuple[str, Any]] = [("it", plain)]
    count = 0
    for _ in range(MOST_DEEP):
        inner: list[tuple[str, Any]] = []
        for where, value in level:
            if isinstance(value, list):
                inner += [(where, item) for item in value]
            elif isinstance(value, dict):
                for key in value:
                    _check_text(key, where, MOST_NAME)
                inner += [(key, item) for key, item in value.items()]
            else:
                _check_value(value, where)
        count += len(inner)
        if count > MOST_VALUES:
            raise Misshapen(f"it holds more than {MOST_VALUES} values")
        level = inner
        if not level:
            return
    raise Misshapen(f"{level[0][0]!r:.80} is nested more than {MOST_DEEP} deep")


def _check_value(value: Any, where: str) -> None:
    if isinstance(value, str):
        _check_text(value, where, MOST_LETTERS)
    elif isinstance(value, int) and abs(value) > MOST_INT:
        raise Misshapen(f"{where!r:.80} is a number of more than 64 bits")
    elif isinstance(value, float) and abs(value) > MOST_FLOAT:
        raise Misshapen(f"{where!r:.80} is {value!r}, and {MOST_FLOAT:g} at most is taken")


def _check_text(text: str, where: str, most: int) -> None:
    if len(text) > most:
        raise Misshapen(f"a string in {where!r:.80} has {len(text)} characters, {most} at most")
    if not text.isascii() and SURROGATE.search(text):
        raise Misshapen(f"a string in {where!r:.80} holds half a surrogate pair")


@dataclass(frozen=True)
class File:
    """A file of the artifacts, by its path inside their folder."""

    name: str
    bytes: int
    sha256: str


def is_a(value: Any, kind: type | tuple[type, ...]) -> bool:
    """Whether a value is of this kind; True and False are no numbers."""
    return isinstance(value, kind) and not isinstance(value, bool)


def need(
    plain: Any,
    name: str,
    kind: type | tuple[type, ...],
    default: Any = None,
    where: str = "it",
) -> Any:
    """`plain[name]`, which is of this kind; absent, the default if there is one."""
    if not isinstance(plain, dict):
        raise Misshapen(f"{where} is {type(plain).__name__}, not an object")
    if name not in plain and default is None:
        raise Misshapen(f"{where} lacks {name!r:.80}")
    value = plain.get(name, default)
    if not is_a(value, kind):
        wanted = kind.__name__ if isinstance(kind, type) else "a number"
        raise Misshapen(f"{name!r:.80} of {where} is {value!r:.80}, not {wanted}")
    return value


def count(
    plain: Any,
    name: str,
    least: int,
    default: int | None = None,
    where: str = "it",
    most: int = MOST_INT,
) -> int:
    """`plain[name]`, a whole number from `least` to `most`."""
    value = need(plain, name, int, default, where)
    if not least <= value <= most:
        raise Misshapen(
            f"{name!r:.80} of {where} is out of range: {value}, wanted {least} to {most}"
        )
    return value


def all_of(values: Any, kind: type, name: str) -> None:
    """Refuse, with Misshapen, a value that is no list (or dict's values) of this kind."""
    if not isinstance(values, Sequence) or isinstance(values, str):
        raise Misshapen(f"{name!r} is {values!r:.80}, not a list")
    if not all(is_a(value, kind) for value in values):
        raise Misshapen(f"{name!r} is {values!r:.80}, not all {kind.__name__}")


def file(plain: Any, where: str) -> File:
    """A file's name, bytes and sha256."""
    size, digest = count(plain, "bytes", 0, where=where), need(plain, "sha256", str, where=where)
    return File(need(plain, "name", str, where=where), size, digest.lower())


def numbers(
    words: str, what: str, kind: type[int] | type[float], least: float, most: float
) -> tuple[Any, ...]:
    """Numbers as an option --`what` has them, "10,30".

    Raises:
        BadOption: they are none, or one is out of bounds.
    """
    try:
        values = tuple(kind(word) for word in words.split(","))
    except ValueError:
        values = ()
    if not values or not all(least <= number <= most for number in values):
        raise BadOption(
            f"--{what} wants numbers from {least:g} to {most:g} with commas between them, "
            f"not {words!r:.80}"
        )
    return values
