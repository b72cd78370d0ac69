"""Drafts without a model: what followed the last few tokens when they were said before."""

from __future__ import annotations

from collections.abc import Sequence

BEGIN, END = -1, -2  # before and after each text: no ids
LONGEST, SHORTEST = 4, 2  # tokens that must be the same


class Ngrams:
    """The prompt, earlier answers and the answer so far, by their runs of a few tokens."""

    def __init__(self) -> None:
        self._tokens: list[int] = []
        self._after: dict[tuple[int, ...], int] = {}  # a run -> where it last went on
        self._answer = 0  # where the answer starts
        self.begin()

    def learn(self, text: Sequence[int]) -> None:
        """A text that answers may repeat; called between two answers.

        What begins it is expected where an answer begins.
        """
        self.begin()
        for token in text:
            self._add(token)
        self.begin()

    def begin(self) -> None:
        """A new answer starts; the one before it is as good as learnt."""
        if len(self._tokens) > self._answer + 1:
            self._add(END)
            self._answer = len(self._tokens)
        else:
            del self._tokens[self._answer :]
        self._add(BEGIN)

    def propose(self, ids: Sequence[int], most: int) -> list[int]:
        """Up to `most` tokens that may follow the answer so far; none where nothing is alike."""
        tokens = self._tokens
        for token in ids[len(tokens) - self._answer - 1 :]:
            self._add(int(token))
        for length in range(min(LONGEST, len(ids) + 1), SHORTEST - 1, -1):
            at = self._after.get(tuple(tokens[-length:]))
            if at is not None:
                found = tokens[at : at + most]
                if END in found:
                    return found[: found.index(END)]
                # What is being said goes round: its end is where it came from.
                return [found[i % len(found)] for i in range(most)]
        return []

    def _add(self, token: int) -> None:
        """A token more; the runs that end before it go on with it."""
        at = len(self._tokens)
        for length in range(SHORTEST, min(LONGEST, at) + 1) if token != END else ():
            run = tuple(self._tokens[at - length :])
            if END not in run:
                self._after[run] = at
        self._tokens.append(token)
