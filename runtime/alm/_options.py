"""What may be said of an answer by keyword, and bounds that keep a machine from being filled."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, Literal, TypedDict

from alm import decoding
from alm._tasks import near
from alm.errors import BadOption

MOST_BEAMS = 256  # rows of the KV cache; published settings have at most 16
MOST_TOKENS = 2**31 - 1  # positions: the graphs' int32, more than any context
MOST_THREADS = 256  # of each graph, where there are no more cores; each takes a stack


class Decoding(TypedDict, total=False):
    """The fields of `decoding.Options` as keyword arguments; None is as good as unsaid."""

    max_new_tokens: int | None
    num_beams: int | None
    do_sample: bool | None
    temperature: float | None
    top_k: int | None
    top_p: float | None
    repetition_penalty: float | None
    length_penalty: float | None
    min_length: int | None
    early_stopping: bool | Literal["never"] | None
    seed: int | None


def choose(defaults: Mapping[str, Any], said: Mapping[str, Any]) -> decoding.Options:
    """`decoding.choose`, after what is unknown or beyond all bounds.

    Raises:
        BadOption: as there; an unknown name is answered with the near ones.
    """
    known = [each.name for each in fields(decoding.Options)]
    for name in sorted(set(said) - set(known)):
        nearest = near(name, known)
        if nearest:
            raise BadOption(f"unknown option {name!r:.80}; did you mean {nearest[0]}?")
    for name, most in (
        ("num_beams", MOST_BEAMS),
        ("max_new_tokens", MOST_TOKENS),
        ("min_length", MOST_TOKENS),
        ("top_k", MOST_TOKENS),
    ):
        value = said.get(name)
        if isinstance(value, int) and value > most:
            raise BadOption(f"{name} is at most {most}, not {value if value < 1e18 else 'more'}")
    return decoding.choose(defaults, said)


def check_threads(threads: int) -> None:
    """Refuse, with BadOption, more threads than a machine can start."""
    most = max(MOST_THREADS, os.cpu_count() or 1)
    if not isinstance(threads, int) or not 0 <= threads <= most:
        raise BadOption(f"threads are 0 (the engine's choice) to {most}, not {threads!r:.40}")
