"""What a search for tokens takes and yields: a decoder, steps, and answers that have ended."""

from __future__ import annotations

from collections import abc
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

import numpy as np

StopReason = Literal["eos", "stop_string", "length", "grammar"]


class Decoder(Protocol):
    """A language model with a cache, one row a sequence."""

    def step(self, token_ids: np.ndarray) -> np.ndarray:
        """Feed one token to every row, int64 [rows]; gives logits, float32 [rows, vocab]."""
        ...

    def reorder(self, rows: np.ndarray) -> None:
        """Make row i of the cache a copy of what was row rows[i]; rows may become more or fewer."""
        ...


class Grammar(Protocol):
    """What the rows of a search must follow; `alm.grammar.following` has one."""

    def restrict(self, row: int, new: abc.Sequence[int], scores: np.ndarray) -> None:
        """Set scores [vocab] to -inf of what may not follow the `new` tokens of prompt row `row`.

        Raises:
            BadOption: nothing may.
        """
        ...

    def complete(self, row: int, new: abc.Sequence[int]) -> bool:
        """Whether nothing may follow these tokens but an end."""
        ...


@dataclass(frozen=True)
class Sequence:
    """An answer: the new tokens (the EOS too, if there is one), why they end, a beam's score."""

    token_ids: list[int]
    stop_reason: StopReason
    score: float | None = None  # sum of log probabilities / length ** length_penalty; beams only


class Step(NamedTuple):
    """What was chosen from one pass of the decoder over all rows that had not ended."""

    # Prompt row -> its next token, the EOS too. Empty with beams, whose tokens are certain only
    # when their row ends.
    tokens: Mapping[int, int]
    ended: Mapping[int, Sequence]  # prompt row -> its answer, of the rows that end here
    decoder_ms: float | None  # of that pass, moving rows of the cache included; None: the prompt's
