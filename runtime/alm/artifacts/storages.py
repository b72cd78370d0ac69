"""Storages of parts and levers in the manifest: what differs from float32, by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from alm.onnxfile.summary import BITS
from alm.parsing import Misshapen, all_of, count, need
from alm.precision import FLOAT, PLAINEST, Codes, Levers, Storage

MOST_BOUND = 1e6  # the root mean square of errors over that of the values
WORDS = ("as_head", "computes", "operators", "backends")  # fields that are lists


def to_json(storage: Storage) -> dict[str, Any]:
    """What differs from float32, as plain data."""
    plain: dict[str, Any] = {}
    for field in fields(storage):
        value = getattr(storage, field.name)
        if value == getattr(PLAINEST, field.name):
            continue
        if isinstance(value, Codes):
            value = {name: held for name, held in vars(value).items() if held}
        plain[field.name] = list(value) if isinstance(value, tuple) else value
    return plain


def from_json(plain: Any, where: str) -> Storage:
    """The storage that `to_json` made plain data of.

    Raises:
        Misshapen: a field is of another kind or size than it may have.
    """
    for name in WORDS:
        all_of(need(plain, name, list, [], where), str, name)
    bound = float(need(plain, "bound", (int, float), 0.0, where))
    if not 0 <= bound <= MOST_BOUND:
        raise Misshapen(f"'bound' of {where} is {bound!r:.80}, no share of the values")
    fitted: Any = plain.get("fitted", False)
    if not isinstance(fitted, bool):
        raise Misshapen(f"'fitted' of {where} is {fitted!r:.80}, neither true nor false")
    return Storage(
        layers=_codes(need(plain, "layers", dict, {}, where), where),
        head=_codes(need(plain, "head", dict, where=where), where) if "head" in plain else None,
        **{name: tuple(plain.get(name, ())) for name in WORDS},
        cache=_dtype(plain, "cache", where),
        opset=count(plain, "opset", 0, 0, where),
        fitted=fitted,
        bound=bound,
    )


def levers_to_json(levers: Levers) -> dict[str, Any]:
    """By lever and role."""
    return {
        name: {role: to_json(storage) for role, storage in roles.items()}
        for name, roles in levers.items()
    }


def levers_from_json(plain: Mapping[str, Any]) -> dict[str, dict[str, Storage]]:
    """The same read back; Misshapen as `from_json` has it."""
    return {
        name: {
            role: from_json(entry, f"{role:.80} of lever {name:.80}")
            for role, entry in need(plain, name, dict, where="'levers'").items()
        }
        for name in plain
    }


def _codes(plain: Any, where: str) -> Codes:
    scale = need(plain, "scale", str, "", where)
    if scale and scale not in BITS:
        raise Misshapen(f"'scale' of {where} is {scale!r:.80}, which is no type of numbers")
    zero_point: Any = plain.get("zero_point", False)
    if not isinstance(zero_point, bool):
        raise Misshapen(f"'zero_point' of {where} is {zero_point!r:.80}, neither true nor false")
    return Codes(
        _dtype(plain, "dtype", where), count(plain, "block", 0, 0, where), scale, zero_point
    )


def _dtype(plain: Any, name: str, where: str) -> str:
    dtype = need(plain, name, str, FLOAT, where)
    if dtype not in BITS:
        raise Misshapen(f"{name!r} of {where} is {dtype!r:.80}, which is no type of numbers")
    return dtype
