"""A dialect: the operators that attention is written in. It is bound while a part is built.

    with dialect.bound("ort"):
        decoder = Decoder(spec)

Whoever needs it calls `current()` in its `__init__` and keeps what it got, so no call between
the export and a layer hands a dialect on. A file of `dialects/` is one, and gives all that
`Dialect` lists.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Protocol, cast

from torch import Tensor

from alm import registry
from wrappers import dialects

DEFAULT = "decomposed"  # where none is bound: any backend reads it, and shapes are alike in all

_bound: ContextVar[str] = ContextVar("dialect", default=DEFAULT)

Heads = tuple[Tensor, Tensor, Tensor]  # of an attention's output and its two caches


class Dialect(Protocol):
    """What a file of `dialects/` gives; shapes are those of `dialects/decomposed.py`.

    Each function computes the same outside of an export, in torch.
    """

    OPSET: int  # of the decoder's graph
    ENCODER_OPSET: int  # of a graph whose attention is `encoder_attend`
    CACHE_AXIS: str  # "past", a cache that grows, or "capacity", one that is written in place
    HEAD_MULTIPLE: int  # the numbers of a head in the cache are filled up to a multiple of this
    CHUNK_ROWS: int  # rows at a time when several tokens meet a past; 0: any number
    INTEGER_CACHE: bool  # whether the cache may be int8
    TRACKS_POSITIONS: bool  # whether the cache also holds where each key stands

    grouped_query: Callable[..., Heads] | None
    """All of a `decoder.Attention` but its output projection, when it is exported.

    None: the functions below. It is called as the attention is, which comes first.
    """

    experts: Callable[..., Tensor] | None
    """All of an `experts.Experts` when it is exported, called as that is; None: plain products."""

    def rms_norm(self, x: Tensor, weight: Tensor, eps: float) -> Tensor: ...
    def rotate(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor: ...
    def extend(self, past: Tensor, new: Tensor, past_lengths: Tensor) -> Tensor: ...
    def extend_positions(self, past: Tensor, positions: Tensor, real: Tensor) -> Tensor: ...
    def attend(
        self, q: Tensor, k: Tensor, v: Tensor, allowed: Tensor, scale: float, softcap: float
    ) -> Tensor: ...
    def encoder_padding(self, real: Tensor) -> Tensor: ...
    def encoder_attend(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        heads: int,
        bias: Tensor | None = None,
        padded: Tensor | None = None,
    ) -> Tensor: ...


def find(name: str) -> Dialect:
    """The dialect of this name.

    Raises:
        UnknownName: there is none; the message lists those there are.
    """
    return cast("Dialect", registry.pick(dialects, name))


@contextmanager
def bound(name: str) -> Iterator[Dialect]:
    """What is built inside is of this dialect.

    Raises:
        UnknownName: there is no such dialect.
    """
    chosen = find(name)
    token = _bound.set(name)
    try:
        yield chosen
    finally:
        _bound.reset(token)


def current() -> Dialect:
    """The dialect that is bound here."""
    return find(_bound.get())
