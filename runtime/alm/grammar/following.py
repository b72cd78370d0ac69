"""Answers as they follow their forms: which tokens may come next, row by row of one search."""

from __future__ import annotations

from collections.abc import Container, Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np

from alm.errors import BadOption
from alm.grammar.forms import Form

if TYPE_CHECKING:
    from llguidance import LLMatcher

NO = np.float32(-np.inf)
# What is added to eight scores, by the byte of the mask that says which of them may follow.
_BITS = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1, bitorder="little")
_ADDED = np.where(_BITS, np.float32(0), NO).astype(np.float32)
_FEW = 16  # one in so many: below it the few are moved, where it takes less time


class State(Protocol):
    """An answer so far."""

    def copy(self) -> State:
        """The same, which goes its own way from here on."""
        ...

    def take(self, token: int) -> None:
        """One more token, of those that may follow."""
        ...

    def mask(self) -> np.ndarray:
        """uint8 [size / 8]: a bit for each token, the lowest of a byte first; 1 may follow."""
        ...

    @property
    def whole(self) -> bool:
        """Whether it may end here."""
        ...

    @property
    def complete(self) -> bool:
        """Whether nothing may follow but its end."""
        ...


class Plain:
    """An answer that follows its form from the first token on."""

    def __init__(self, matcher: LLMatcher, form: Form, size: int) -> None:
        """`size` is how many tokens may be said."""
        self._matcher, self._form, self._size = matcher, form, size

    def copy(self) -> Plain:
        """See `State`."""
        return Plain(self._matcher.deep_copy(), self._form, self._size)

    def take(self, token: int) -> None:
        """See `State`."""
        if not self._matcher.consume_token(token):
            raise self._lost()

    def mask(self) -> np.ndarray:
        """See `State`.

        Raises:
            BadOption: the form is too large to be followed any further.
        """
        bits = self._matcher.compute_bitmask()
        if self._matcher.is_error():
            raise self._lost()
        mask = np.frombuffer(bits, np.uint8, -(-self._size // 8)).copy()
        if last := self._size % 8:
            mask[-1] &= (1 << last) - 1
        return mask

    @property
    def whole(self) -> bool:
        """See `State`."""
        return self._matcher.is_accepting()

    @property
    def complete(self) -> bool:
        """See `State`."""
        return self._matcher.is_stopped() and self._matcher.is_accepting()

    def _lost(self) -> BadOption:
        return self._form.refused(self._matcher.get_error() or "a token that may not follow came")


class Following:
    """The rows of one search, each of which follows a form or none.

    Asked with the tokens of an answer so far, it remembers those of the step before, so that a step
    costs one token of each hypothesis. One search uses it at a time.
    """

    def __init__(
        self, forms: Sequence[Form | None], states: Sequence[State | None], beams: bool
    ) -> None:
        """Every row at the beginning of its answer.

        Args:
            forms: of each row.
            states: of each row that has a form.
            beams: whether rows have several hypotheses, of which one may come to nothing.
        """
        self.forms, self._beams = forms, beams
        self._rows: list[dict[tuple[int, ...], State]] = [
            {} if state is None else {(): state} for state in states
        ]

    def restrict(self, row: int, new: Sequence[int], scores: np.ndarray) -> None:
        """Set scores [vocab] to -inf of the tokens that may not follow a row's `new` ones.

        Raises:
            BadOption: none of the vocabulary may follow, or all that may are forbidden.
        """
        if (form := self.forms[row]) is None:
            return
        mask = self._state(row, new).mask()
        if not mask.any() and not self._beams:
            raise form.refused("no token of the model's vocabulary goes on from here")
        _apply(mask, scores)
        if scores.max() == NO and not self._beams:
            raise BadOption(
                f"the options forbid every token that the {form.kind} lets follow after "
                f"{len(new)}; loosen min_new_tokens, suppress_tokens, bad_words_ids, "
                "no_repeat_ngram_size or what else forbids tokens"
            )

    def complete(self, row: int, new: Sequence[int]) -> bool:
        """Whether a row's `new` tokens are an answer to which nothing may be added."""
        return self.forms[row] is not None and self._state(row, new).complete

    def lack(self, row: int, new: Sequence[int], eos: Container[int]) -> str:
        """What a row's answer, which an EOS may end, is not; "" where it follows its form."""
        form, ids = self.forms[row], new[:-1] if new and new[-1] in eos else new
        return "" if form is None or self._state(row, ids).whole else form.whole

    def _state(self, row: int, new: Sequence[int]) -> State:
        states, key = self._rows[row], tuple(map(int, new))
        if key not in states:
            known = max((k for k in states if k == key[: len(k)]), key=len)
            # One hypothesis has one state, beyond the beginning that stays.
            state = states[known].copy() if self._beams or not known else states.pop(known)
            for token in key[len(known) :]:
                state.take(token)
            old = [k for k in states if 0 < len(k) < len(key) - 1]
            for gone in old:
                del states[gone]
            states[key] = state
        return states[key]


def _apply(mask: np.ndarray, scores: np.ndarray) -> None:
    """Set scores [vocab] to -inf where the mask's bit is 0, and beyond its end.

    By how many there are: few that may follow are kept, few that may not are struck out, and else
    0 or -inf is added to each (of 128k tokens: 50, 50 and 200 us).
    """
    size = min(len(scores), 8 * len(mask))
    scores[size:] = NO
    scores = scores[:size]
    may = np.unpackbits(mask, bitorder="little")[:size].view(bool)
    count = np.count_nonzero(may)
    if count * _FEW < size:
        places = np.flatnonzero(may)
        kept = scores[places]
        scores.fill(NO)
        scores[places] = kept
    elif (size - count) * _FEW < size:
        scores[np.flatnonzero(~may)] = NO
    else:
        scores += _ADDED[mask].reshape(-1)[:size]
