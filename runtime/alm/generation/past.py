"""What a conversation's KV cache holds, and what goes into it before the next turn's prompt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile

import numpy as np

from alm.adapters.adapter import NONE, Adapter
from alm.decoder.decoder import Decoder, assemble
from alm.decoding import steps
from alm.facts import DimensionFacts
from alm.generation.parts import Parts
from alm.text.detokenizer import Stops
from alm.text.prompt import Prompt


@dataclass(frozen=True)
class Feed:
    """What a turn puts into the cache."""

    rows: list[list[np.ndarray]]  # what is new: ids [n] and embeddings [n, hidden] of each row
    embeds: np.ndarray  # float32 [rows, longest, hidden]
    lengths: np.ndarray  # int64 [rows]
    held: int  # positions that are in the cache before it
    prefix: tuple[int, ...] = ()  # ids that begin the one row, worth remembering
    begun: Mapping[str, np.ndarray] | None = None  # the cache after them, where it is known

    @property
    def shared(self) -> int:
        """Positions of the prompt itself that are not computed again."""
        return len(self.prefix) if self.begun else 0

    @property
    def whole(self) -> list[int]:
        """Positions of each row's prompt, with all turns before it."""
        return [self.held + self.shared + int(length) for length in self.lengths]


class Past:
    """Turns that were answered. Until there is one, a turn may have several rows, then one."""

    def __init__(self, parts: Parts, adapter: Adapter = NONE) -> None:
        """`adapter`: with which all of its turns are computed."""
        self.turns = self.clips = 0
        self._parts, self._decoder = parts, parts.decoder(adapter)
        self._told = adapter.told
        self._held = 0  # positions in the cache
        self._ids: list[int] = []  # of those positions
        self._unfed: list[int] = []  # ids of the last answer that are not in the cache
        self._history = History(parts.manifest.facts.dimensions)

    @property
    def bytes(self) -> int:
        """Of the KV cache."""
        return self._decoder.cache.bytes

    @property
    def ids(self) -> list[int]:
        """All ids before the next turn; known for models that were given prompts as ids."""
        return [*self._ids, *self._unfed]

    def feed(self, rows: list[list[np.ndarray]]) -> Feed:
        """What a turn of these rows puts into the cache; nothing is changed yet."""
        if self._unfed:
            rows = [[np.array(self._unfed, np.int64), *rows[0]]]
        embeds, lengths = assemble(self._parts.table, rows)
        held = self._held
        if self._history.restarts(held, held + int(lengths.max())):
            embeds, lengths = assemble(self._parts.table, [[*self._history.row, *rows[0]]])
            held = 0
        if held or self._history.row or len(rows) > 1 or self._parts.stepping:
            return Feed(rows, embeds, lengths, held)
        prefix = self._parts.prefixes.of(rows[0], len(embeds[0]))
        begun = self._parts.prefixes.get(prefix, self._told)
        if begun:
            embeds, lengths = embeds[:, len(prefix) :], lengths - len(prefix)
        return Feed(rows, embeds, lengths, held, prefix, begun)

    def open(self, feed: Feed, most: int) -> Decoder:
        """The decoder, with room for `most` positions in every row."""
        self._held = feed.held
        if feed.held:
            self._decoder.room(most)
        else:
            self._decoder.start(len(feed.lengths), most, feed.shared, feed.begun)
        return self._decoder

    def keep_prefix(self, feed: Feed) -> None:
        """Remember the beginning of a prompt that was answered, unless it is known."""
        if feed.prefix and not feed.begun:
            begun = self._decoder.cache.first(len(feed.prefix))
            self._parts.prefixes.put(feed.prefix, begun, self._told)

    def forget(self) -> None:
        """The turn failed or was left: the cache is as it was before it."""
        if self._held:
            self._decoder.cut(self._held)

    def remember(
        self,
        feed: Feed,
        answer: steps.Sequence,
        asked: Prompt,
        prompt: Sequence[int],
        stops: Stops,
        followed: bool,
    ) -> None:
        """Leave the cache of the one row as the next turn wants it, and note what must go in.

        Args:
            feed: what the turn began with.
            answer: the answer to it.
            asked: the turn itself.
            prompt: all ids before the answer, or none for models that are not given ids.
            stops: what ended the answer, and is no part of it.
            followed: whether the cache's first row holds the answer; of beams it may hold another
                hypothesis, and an answer that was told was not fed.
        """
        ids = stops.before(list(map(int, answer.token_ids)))
        fed = min(len(ids), len(answer.token_ids) - 1) if followed else 0
        end = asked.pieces[-1]
        said = self._said_later(ids, answer, stops)
        later = [*(end if asked.later is None else asked.later), *said]
        pairs = zip([*end, *ids[:fed]], later, strict=False)
        same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
        gone, kept = max(0, len(end) - same), ids[: max(0, same - len(end))]  # of turn and answer
        self._held = feed.whole[0] - len(end) + same
        self._ids = [*prompt[: len(prompt) - gone], *kept] if prompt else []
        self._decoder.cut(self._held)
        unfed = later[same:]
        self._unfed = unfed[:-1] if unfed and unfed[-1] in self._parts.eos else unfed
        self._history.add(feed, gone, kept)
        self.turns, self.clips = self.turns + 1, self.clips + len(asked.pieces) - 1

    def _said_later(self, ids: list[int], answer: steps.Sequence, stops: Stops) -> list[int]:
        """An answer's ids as later turns have them."""
        if self._parts.manifest.facts.prompt.retold:
            return self._retold(ids[: len(answer.token_ids) - 1])
        thoughts = self._parts.prompter.thoughts
        later = thoughts.later(stops.cut(ids)) if thoughts.left_out else None
        return ids if later is None else self._parts.prompter.said(later)

    def _retold(self, ids: list[int]) -> list[int]:
        """An answer's ids as its text has them when it is tokenized anew."""
        text = self._parts.tokenizer.decode(ids, skip_special_tokens=False)
        return self._parts.prompter.said(text.strip())


class History:
    """What is in the cache of a conversation, for models whose rotary frequencies change.

    Past a length that the manifest names, all keys of a call are turned by other frequencies: for
    good (`rope_switches_past`, longrope), at each length anew (`rope_grows_past`, dynamic) or at
    each doubling (`rope_doubles_past`, QWen). Keys that were cached before are then not those of
    the model given the whole conversation, which is therefore computed again from its start.
    """

    def __init__(self, dimensions: DimensionFacts) -> None:
        self.grows, self.switches = dimensions.rope_grows_past, dimensions.rope_switches_past
        self.doubles = dimensions.rope_doubles_past
        self.row: list[np.ndarray] = []  # ids [n] and embeddings [n, hidden] of all turns
        self._first = 0  # positions of the call that began the cache

    def restarts(self, held: int, whole: int) -> bool:
        """Whether a row of `whole` positions, `held` of them in the cache, must begin anew."""
        if not held:  # a turn that failed half way took the cache with it
            return bool(self.row)
        if self.doubles is not None and self._doublings(whole) != self._doublings(self._first):
            return True
        grown = self.grows is not None and whole > self.grows
        return grown or (self.switches is not None and self._first <= self.switches < whole)

    def _doublings(self, length: int) -> int:
        """How many times the trained length must be doubled to hold so many positions."""
        return ((length - 1) // self.doubles).bit_length() if self.doubles else 0

    def add(self, feed: Feed, gone: int, answer: Sequence[int]) -> None:
        """Remember a turn, of which the last `gone` ids were left out again, and what it cached."""
        if (self.grows, self.switches, self.doubles) == (None, None, None):
            return
        self._first = self._first if feed.held else feed.whole[0]
        *rows, end = feed.rows[0]
        self.row += [*rows, end[: len(end) - gone], np.asarray(answer, np.int64)]
