"""Protobuf's text format, as Triton's configurations are written in."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeGuard

Message = Mapping[str, Any]  # field -> text, number, bool, Word, message, or a list of these


class Word(str):
    """The name of an enum's value, which stands without quotes."""


def text(message: Message) -> str:
    """The message, a field a line, in the order that is given."""
    return "".join(f"{line}\n" for line in _lines(message))


def pairs(plain: Mapping[str, str]) -> list[Message]:
    """A map from text to text."""
    return [{"key": key, "value": value} for key, value in plain.items()]


def parameters(plain: Mapping[str, str]) -> list[Message]:
    """A model's parameters, each of them text."""
    return [{"key": key, "value": {"string_value": value}} for key, value in plain.items()]


def _lines(message: Message) -> Iterator[str]:
    for field, value in message.items():
        if _numbers(value):
            yield f"{field}: [ {', '.join(map(str, value))} ]"
            continue
        for one in value if isinstance(value, list) else [value]:
            if isinstance(one, Mapping):
                yield f"{field} {{"
                yield from (f"  {line}" for line in _lines(one))
                yield "}"
            else:
                yield f"{field}: {_scalar(one)}"


def _numbers(value: object) -> TypeGuard[Sequence[int]]:
    return isinstance(value, list) and bool(value) and all(isinstance(n, int) for n in value)


def _scalar(value: object) -> str:
    if isinstance(value, Word):
        return str(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    # Bytes beyond printable ASCII in octal, which every parser of the format knows.
    safe = "".join(
        chr(byte) if 32 <= byte < 127 and byte not in b'"\\' else f"\\{byte:03o}"
        for byte in str(value).encode()
    )
    return f'"{safe}"'
