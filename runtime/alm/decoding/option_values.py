"""Values of decoding options as JSON and Python give them: checked, and lists made tuples."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from numbers import Integral, Real
from typing import Any, cast

from alm.errors import BadOption

Ids = tuple[int, ...]
# transformers' own defaults of a WatermarkingConfig
WATERMARK = {"greenlist_ratio": 0.25, "bias": 2.0, "hashing_key": 15485863, "context_width": 1}


def ids(name: str, value: object) -> Ids:
    if not _listed(value):
        raise BadOption(f"{name} must be a list of token ids, not {value!r:.80}")
    tokens = tuple(cast("Iterable[Any]", value))
    for token in tokens:
        whole(f"a token of {name}", token, 0)
    return tuple(map(int, tokens))


def sequence(name: str, value: object) -> Ids:
    tokens = ids(name, value)
    if not tokens:
        raise BadOption(f"{name} holds a sequence without tokens")
    return tokens


def sequences(name: str, value: object) -> tuple[Ids, ...]:
    if not _listed(value):
        raise BadOption(f"{name} must be a list of lists of token ids, not {value!r:.80}")
    return tuple(sequence(name, tokens) for tokens in cast("Iterable[object]", value))


def biases(name: str, value: object) -> tuple[tuple[Ids, float], ...]:
    pairs = list(value.items()) if isinstance(value, Mapping) else value
    if not _listed(pairs) or not all(_listed(pair, 2) for pair in cast("list[Any]", pairs)):
        raise BadOption(f"{name} must be a list of [token ids, bias], not {value!r:.80}")
    by_tokens: dict[Ids, float] = {}
    for tokens, bias in cast("list[Any]", pairs):
        between(f"a bias of {name}", bias, -1e9, 1e9)
        by_tokens[sequence(name, tokens)] = float(bias)
    return tuple(by_tokens.items())


def ends(name: str, value: object) -> int | Ids:
    if _listed(value):
        return ids(name, value)
    whole(name, value, 0)
    return int(cast("int", value))


def decay(name: str, value: object) -> tuple[int, float]:
    if not _listed(value, 2):
        raise BadOption(f"{name} must be [start, factor], not {value!r:.80}")
    start, factor = cast("tuple[Any, Any]", value)
    whole(f"the start of {name}", start, 0)
    between(f"the factor of {name}", factor, 1e-3, 1e3)
    return int(start), float(factor)


def watermark(name: str, value: object) -> tuple[tuple[str, float], ...]:
    plain: Any = dict(cast("Any", value)) if isinstance(value, Mapping | tuple) else None
    if plain is None:
        raise BadOption(f"{name} must be a dictionary, not {value!r:.80}")
    if plain.pop("seeding_scheme", "lefthash") != "lefthash":
        raise BadOption(f"{name} can have the seeding_scheme 'lefthash' only")
    if unknown := sorted(map(str, plain.keys() - WATERMARK.keys())):
        raise BadOption(f"{name} has {unknown[0]!r:.80}; known are: {', '.join(sorted(WATERMARK))}")
    config = WATERMARK | plain
    between(f"greenlist_ratio of {name}", config["greenlist_ratio"], 1e-6, 1 - 1e-6)
    between(f"bias of {name}", config["bias"], -1e6, 1e6)
    whole(f"hashing_key of {name}", config["hashing_key"], 0)
    whole(f"context_width of {name}", config["context_width"], 1)
    return tuple(sorted(config.items()))


def _listed(value: object, count: int | None = None) -> bool:
    return isinstance(value, list | tuple) and count in (None, len(cast("list[Any]", value)))


def as_ids(value: int | Ids | None) -> Ids:
    return () if value is None else value if isinstance(value, tuple) else (value,)


def finite(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)


def whole(name: str, value: object, least: int) -> None:
    if not isinstance(value, Integral) or isinstance(value, bool) or value < least:
        raise BadOption(f"{name} must be a whole number of at least {least}, not {value!r:.80}")


def between(name: str, value: object, low: float, high: float) -> None:
    if not finite(value) or not low <= cast("float", value) <= high:
        raise BadOption(f"{name} must be a number from {low:g} to {high:g}, not {value!r:.80}")
