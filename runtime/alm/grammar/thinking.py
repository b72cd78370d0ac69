"""A thought before an answer that follows a form: said freely, up to the mark that ends it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from alm.grammar.vocabulary import Vocabulary

if TYPE_CHECKING:
    from alm.grammar.following import State


@dataclass(frozen=True)
class Marks:
    """What begins a thought and ends it, as bytes, and whether the prompt has begun it."""

    before: bytes
    after: bytes
    begun: bool


class Table:
    """Masks over one vocabulary for thoughts between two marks."""

    def __init__(self, vocabulary: Vocabulary, marks: Marks) -> None:
        self.vocabulary, self.marks = vocabulary, marks

    @cached_property
    def opening(self) -> list[int]:
        """The tokens that begin a thought."""
        return self.vocabulary(self.marks.before)

    @cached_property
    def text(self) -> list[bytes]:
        """What each token says."""
        return [self.vocabulary.text([token]) for token in range(self.vocabulary.size)]

    @cached_property
    def free(self) -> np.ndarray:
        """All tokens that say something: no end, and nothing that is not seen."""
        return self.only(token for token, said in enumerate(self.text) if said)

    @cached_property
    def past(self) -> list[np.ndarray]:
        """Tokens that would go on past the mark into the answer, where so much of it was said."""
        after = self.marks.after
        over = [
            self.only(
                t
                for t, said in enumerate(self.text)
                if said.startswith(after[n:]) and said[len(after) - n :].strip()
            )
            for n in range(1, len(after))
        ]
        inside = self.only(
            t for t, said in enumerate(self.text) if said.partition(after)[2].strip()
        )
        return [inside, *over]

    def only(self, tokens: Iterable[int]) -> np.ndarray:
        """A mask of these tokens: uint8 [size / 8]."""
        bits = np.zeros(len(self.text), np.uint8)
        bits[list(tokens)] = 1
        return np.packbits(bits, bitorder="little")


class Thinking:
    """An answer behind a thought: it follows the form from where the thought ends.

    A prompt may have begun the thought. Where it has not, the model may begin one with its first
    token, or answer without.
    """

    def __init__(
        self,
        answer: State,
        marks: Marks,
        vocabulary: Vocabulary,
    ) -> None:
        """`answer` is at its beginning."""
        self._answer, self._marks, self._vocabulary = answer, marks, vocabulary
        key = marks.before, marks.after
        self._table: Table = vocabulary.tables.setdefault(key, Table(vocabulary, marks))
        self._thinking = marks.begun
        self._opening = 0 if marks.begun else len(self._table.opening)  # that are still to be said
        self._first = True
        self._said = b""  # of the thought

    def copy(self) -> Thinking:
        """See `State`."""
        made = Thinking(self._answer.copy(), self._marks, self._vocabulary)
        made._thinking, made._opening = self._thinking, self._opening
        made._first, made._said = self._first, self._said
        return made

    def take(self, token: int) -> None:
        """See `State`."""
        first, self._first = self._first, False
        opening = self._table.opening
        if first and not self._marks.begun:
            self._thinking = bool(opening) and token == opening[0]
        if not self._thinking:
            self._answer.take(token)
        elif self._opening:
            self._opening -= 1
        else:
            self._said += self._table.text[token]
            self._thinking = self._marks.after not in self._said

    def mask(self) -> np.ndarray:
        """See `State`."""
        opening = self._table.opening
        if not self._thinking:
            mask = self._answer.mask()
            if self._first and opening:
                mask |= self._table.only(opening[:1])
            return mask
        if self._opening:
            return self._table.only([opening[-self._opening]])
        mask = self._table.free & ~self._table.past[0]
        for n in range(1, len(self._marks.after)):
            if self._said.endswith(self._marks.after[:n]):
                mask &= ~self._table.past[n]
        return mask

    @property
    def whole(self) -> bool:
        """See `State`."""
        return not self._thinking and self._answer.whole

    @property
    def complete(self) -> bool:
        """See `State`."""
        return not self._thinking and self._answer.complete
