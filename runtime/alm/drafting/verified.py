"""A decoder that is fed drafts: each step's logits are those of the same step without them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from alm.drafting.gain import Gain


class Drafter(Protocol):
    """What guesses an answer's next tokens."""

    def propose(self, ids: Sequence[int], most: int) -> list[int]:
        """Up to `most` tokens that may follow the answer's `ids`."""
        ...


class Cached(Protocol):
    """A decoder with a KV cache, as `decoder.decoder.Decoder` is."""

    lengths: np.ndarray

    def feed(self, embeds: np.ndarray, lengths: np.ndarray) -> np.ndarray: ...
    def step(self, token_ids: np.ndarray) -> np.ndarray: ...
    def steps(self, token_ids: Sequence[int]) -> np.ndarray: ...
    def back(self, length: int) -> None: ...
    def reorder(self, rows: np.ndarray) -> None: ...


class Verified:
    """The decoder of one row, as `search.decode` steps it.

    With a token that is to be fed it feeds what is drafted behind it, and keeps the logits after
    each. As long as the tokens that are chosen are the drafted ones, their logits are there. What
    was fed behind another one is taken back.
    """

    def __init__(self, decoder: Cached, drafters: Sequence[Drafter], gain: Gain, most: int) -> None:
        """`most` is how many positions the cache has room for.

        The first of `drafters` that proposes something is followed.
        """
        self.decoder, self.drafters, self.gain, self.most = decoder, drafters, gain, most
        self._before = gain.proposed, gain.accepted
        self._ids: list[int] = []
        self._held = 0  # positions of the prompt and of what was chosen
        self._draft: list[int] = []
        self._logits: list[np.ndarray] = []  # after each drafted token
        self._call: tuple[float, int] | None = None  # seconds and length of the latest draft

    def feed(self, embeds: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        """The prompt; see `Decoder.feed`."""
        logits = self.decoder.feed(embeds, lengths)
        self._held = int(self.decoder.lengths[0])
        return logits

    def step(self, token_ids: np.ndarray) -> np.ndarray:
        """Logits [1, vocab] after one more token [1]."""
        token = int(token_ids[0])
        self._ids.append(token)
        self._held += 1
        if self._draft and self._draft[0] == token:
            del self._draft[0]
            return self._logits.pop(0)[None]
        self.settle()
        start = self.gain.clock()
        if int(self.decoder.lengths[0]) > self._held - 1:
            self.decoder.back(self._held - 1)
        room = self.most - self._held
        draft = self._proposed(min(self.gain.wanted(), room))
        if not draft:
            logits = self.decoder.step(token_ids)
            self.gain.stepped(self.gain.clock() - start)
            return logits
        first, *self._logits = self.decoder.steps([token, *draft])
        self._draft = draft
        self._call = self.gain.clock() - start, len(draft)
        return first[None]

    def _proposed(self, most: int) -> list[int]:
        if most < 1:
            return []
        for drafter in self.drafters:
            if draft := drafter.propose(self._ids, most)[:most]:
                return draft
        return []

    def drafted(self) -> tuple[int, int]:
        """How many tokens of this row were proposed, and how many of those chosen; at its end."""
        self.settle()
        proposed, accepted = self._before
        return self.gain.proposed - proposed, self.gain.accepted - accepted

    def settle(self) -> None:
        """Count the latest draft, of which no more is followed."""
        if self._call:
            seconds, proposed = self._call
            self.gain.drafted(seconds, proposed, proposed - len(self._draft))
        self._call, self._draft, self._logits = None, [], []

    def reorder(self, rows: np.ndarray) -> None:
        """There is one row, which stays."""
        if len(rows) != 1:
            raise ValueError(f"drafts are for one row, not {len(rows)}")
