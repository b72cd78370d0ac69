"""Random changes of JSON values and of bytes: by a seeded dice, so that each can be made again."""

from __future__ import annotations

import copy
import json
from random import Random
from typing import Any

WORDS = [
    "",
    " ",
    "x",
    "../x",
    "/etc/passwd",
    "\0",
    "\x1b[31m",
    "a" * 3000,
    "\ud800",
    "\u202e",
    "{}",
]
WORDS += ["float32", "true", "NaN", "0", "-1", "1e999", "é练🙂", "a/b", "c:d", "{clips}", "<a>"]
NUMBERS = [
    0,
    1,
    -1,
    2,
    3,
    7,
    255,
    2**31,
    2**31 - 1,
    2**32,
    2**53,
    2**63 - 1,
    2**63,
    2**64,
    -(2**63),
]
NUMBERS += [-(2**63), 10**105, 10**30, 1.5, -0.0, 1e-320, 1e308, -1e308, 0.1]
ODD = [None, True, False, [], {}, [[]], [None], {"": None}, {"a": {"b": []}}, *WORDS, *NUMBERS]


def places(plain: Any) -> list[tuple[Any, Any]]:
    """Every (container, key) in nested lists and objects."""
    found: list[tuple[Any, Any]] = []
    todo = [plain]
    while todo:
        container = todo.pop()
        if not isinstance(container, dict | list):
            continue
        keys = list(container) if isinstance(container, dict) else range(len(container))
        for key in keys:
            found.append((container, key))
            todo.append(container[key])
    return found


def value(dice: Random, old: Any) -> Any:
    """Something else: odd, or near to what it was."""
    if dice.random() < 0.4:
        return copy.deepcopy(dice.choice(ODD))
    if isinstance(old, bool):
        return not old
    if isinstance(old, int):
        near = [old + 1, old - 1, -old, old * 2, old << dice.randint(1, 60), old // 2, 0.5]
        return dice.choice([*near, str(old)])
    if isinstance(old, float):
        return dice.choice([-old, old * 10 ** dice.randint(-20, 20), int(old), str(old)])
    if isinstance(old, str):
        return _text(dice, old)
    if isinstance(old, list):
        ways = [old * 2, old[1:], old[::-1], [old], old + [dice.choice(ODD)]]
        return copy.deepcopy(dice.choice(ways))
    if isinstance(old, dict):
        return list(old.items()) if dice.random() < 0.3 else {"x" + k: v for k, v in old.items()}
    return dice.choice(ODD)


def _text(dice: Random, old: str) -> str:
    at = dice.randint(0, len(old))
    return dice.choice(
        [old[:at], old[at:], old + dice.choice(WORDS), old[:at] + dice.choice(WORDS) + old[at:]]
        + [old.upper(), old * 2, dice.choice(WORDS), (old * 500)[: max(len(old), 200_000)]]
    )


def json_value(dice: Random, plain: Any) -> Any:
    """The value with one to three things changed."""
    plain = copy.deepcopy(plain)
    for _ in range(dice.choice([1, 1, 1, 2, 3])):
        there = places(plain)
        if not there:
            return dice.choice(ODD)
        container, key = dice.choice(there)
        way = dice.random()
        if way < 0.15:
            del container[key]
        elif way < 0.25 and isinstance(container, dict):
            container[dice.choice(WORDS) or f"{key}x"] = container.pop(key)
        elif way < 0.33:
            other, its = dice.choice(there)
            container[key] = copy.deepcopy(other.get(its) if isinstance(other, dict) else its)
        elif way < 0.36:
            for _ in range(dice.choice([5, 50, 400])):
                container[key] = [container[key]]
        else:
            container[key] = value(dice, container[key])
    return plain


def json_bytes(dice: Random, plain: Any) -> bytes:
    """A changed value as a file; some files are spoiled as bytes too."""
    text = json.dumps(json_value(dice, plain)).encode()
    return raw(dice, text) if dice.random() < 0.1 else text


def raw(dice: Random, content: bytes, near: int = 0) -> bytes:
    """Bytes flipped, cut, doubled or put in; `near`: most changes in so many at the beginning."""
    made = bytearray(content)
    for _ in range(dice.choice([1, 1, 2, 4, 16])):
        end = near if near and dice.random() < 0.8 else len(made)
        at = dice.randrange(max(1, min(end, len(made))))
        way, size = dice.random(), dice.choice([1, 2, 4, 8, 40])
        if way < 0.5 and made:
            made[at] = dice.choice([made[at] ^ 1 << dice.randrange(8), 0, 255, dice.randrange(256)])
        elif way < 0.65:
            made[at : at + size] = dice.choice([b"\0", b"\xff", b"\x7f", b"\x80"]) * size
        elif way < 0.75:
            del made[at : at + size]
        elif way < 0.85:
            made[at:at] = made[at : at + size] * dice.choice([1, 3])
        elif way < 0.95:
            made[at:at] = dice.randbytes(size)
        else:
            del made[at:]
    return bytes(made)
