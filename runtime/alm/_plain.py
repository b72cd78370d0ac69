"""Plain data of a JSON file, read with what it should be: a number, a name, a file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from alm.errors import BadArtifacts


class Misshapen(BadArtifacts):
    """Something in the manifest is missing or of another kind than it should be."""


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
        raise Misshapen(f"{where} lacks {name!r}")
    value = plain.get(name, default)
    if not is_a(value, kind):
        wanted = kind.__name__ if isinstance(kind, type) else "a number"
        raise Misshapen(f"{name!r} of {where} is {value!r:.80}, not {wanted}")
    return value


def count(plain: Any, name: str, least: int, default: int | None = None, where: str = "it") -> int:
    """`plain[name]`, a whole number from `least` on."""
    value = need(plain, name, int, default, where)
    if not least <= value < 2**63:
        raise Misshapen(f"{name!r} of {where} is out of range")
    return value


def file(plain: Any, where: str) -> File:
    """A file's name, bytes and sha256."""
    size, digest = count(plain, "bytes", 0, where=where), need(plain, "sha256", str, where=where)
    return File(need(plain, "name", str, where=where), size, digest)
