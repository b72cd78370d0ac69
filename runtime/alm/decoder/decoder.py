"""The decoder with its cache, and prompts as what it is fed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from alm.artifacts.embedding_table import Table
from alm.artifacts.manifest import Part
from alm.cache.kv_cache import Cache
from alm.live.state import carried
from alm.ports import FIRST, FROM_END, PROMPT, blank, given_as
from alm.session import Session
from alm.text.markers import Markers

# Positions of one row fed at a time: attention's memory is that, times all before, times heads.
# Rows that go together are fed whole, and up to so many positions they do.
MOST_FED, MOST_TOGETHER = 1024, 4096


class Decoder:
    """The decoder graph and its cache; `step` and `reorder` are what decoding strategies need."""

    def __init__(
        self,
        session: Session,
        part: Part,
        table: Table,
        most_fed: int = MOST_FED,
        switches: int | None = None,
        conditions: Mapping[str, float] | None = None,
        adapter: Mapping[str, np.ndarray] | None = None,
    ) -> None:
        """With `most_fed` of 0 a prompt of any length is fed at once.

        `switches`: a prompt of more positions has other rotary frequencies from its first one on.
        `conditions`: by the input's name, where the graph has it, a number for every row.
        `adapter`: what the graph's slots take; none where there is no adapter.
        """
        self.session, self.part, self.table = session, part, table
        self.most_fed, self.switches = most_fed, switches
        self.lengths = np.zeros(0, np.int64)  # valid positions of each row in the cache
        self.conditions: dict[str, float] = {}
        self.told(**(conditions or {}))
        self._worn = dict(adapter or blank(part.inputs))
        self._own = Cache(session, carried(part.inputs))
        self._gone = 0  # positions before those that the cache still holds
        self._prompts = self.lengths  # of each row's prompt, with all that was before it

    @property
    def cache(self) -> Cache:
        """What it remembers."""
        return self._own

    def done(self) -> None:
        """The answer has ended; what follows it in the cache is wanted no more."""

    def told(self, **conditions: float) -> None:
        """From the next start on these numbers hold, where the graph has inputs of their names."""
        self.conditions |= {n: v for n, v in conditions.items() if n in self.part.inputs}

    def start(
        self, rows: int, most: int, held: int = 0, begun: Mapping[str, np.ndarray] | None = None
    ) -> None:
        """A cache for `rows` sequences of at most `most` positions.

        It is empty, or holds `begun`, the cache [1, ...] of the first `held` positions of each.
        """
        self.lengths = self._prompts = np.full(rows, held, np.int64)
        self._gone = 0
        self.cache.start(rows, most, begun)

    def feed(self, embeds: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        """Logits [rows, vocab] after embeds [rows, seq, hidden], of which `lengths` are real.

        One row is fed in chunks where it is long.
        """
        *_, logits = self.fed(embeds, lengths)
        return logits[:, 0]

    def fed(self, embeds: np.ndarray, lengths: np.ndarray) -> Iterator[np.ndarray]:
        """As `feed`, chunk by chunk the logits [rows, positions, vocab] that the graph gives."""
        self._prompts = self.lengths + lengths
        seq, most = embeds.shape[1], self.most_fed
        if len(embeds) > 1 or not 0 < most < seq:
            yield self._run(embeds, lengths)
            return
        at, end = 0, int(lengths[0])
        while at < end:
            past, size = int(self.lengths[0]), most
            # A call turns its keys by the frequencies of its last position: the first goes beyond.
            if self.switches is not None and past <= self.switches < past + end - at:
                size = max(most, self.switches + 1 - past)
            chunk = embeds[:, at : min(at + size, end)]
            yield self._run(chunk, np.array([chunk.shape[1]], np.int64))
            at += size

    def _run(self, embeds: np.ndarray, lengths: np.ndarray, last: int = 1) -> np.ndarray:
        """Logits [rows, last, vocab] of each row's last positions."""
        cache = self.cache
        outputs = {given_as(name): name for name in cache.kept}
        feeds = {
            "inputs_embeds": np.ascontiguousarray(embeds, np.float32),
            "past_lengths": self.lengths,
            "seq_lengths": np.asarray(lengths, np.int64),
            **cache.kept,
            **self._worn,
        }
        numbers = self.conditions | ({FIRST: self._gone} if FIRST in self.part.inputs else {})
        feeds |= {n: np.full(len(embeds), v, np.float32) for n, v in numbers.items()}
        if PROMPT in self.part.inputs:
            feeds[PROMPT] = self._prompts
        if FROM_END in self.part.inputs:
            from_end = np.arange(last - 1, -1, -1, dtype=np.int64)
            feeds[FROM_END] = np.tile(from_end, (len(embeds), 1))
        # A cache of fixed capacity is written in place, one that grows comes back as another.
        keep = {out: cache.kept[name] if cache.fixed else None for out, name in outputs.items()}
        results = self.session.run(feeds, keep)
        cache.kept = {name: results[out] for out, name in outputs.items()}
        self.lengths = self.lengths + lengths
        return results["logits"].astype(np.float32, copy=False)

    def step(self, token_ids: np.ndarray) -> np.ndarray:
        """Logits [rows, vocab] after one more token [rows] in every row."""
        ids = np.asarray(token_ids, np.int64)
        return self._run(self.table(ids[:, None]), np.ones(len(ids), np.int64))[:, 0]

    def steps(self, token_ids: Sequence[int]) -> np.ndarray:
        """Logits [n, vocab] after each of n tokens of the only row, which are fed at once."""
        ids = np.array([token_ids], np.int64)
        return self._run(self.table(ids), np.array([ids.size], np.int64), ids.size)[0]

    def back(self, length: int) -> None:
        """Forget what lies past `length` positions of the only row."""
        self.cache.cut(length)
        self.lengths = np.array([length], np.int64)

    def reorder(self, rows: np.ndarray) -> None:
        """Row i becomes a copy of what was row rows[i]; there may be more or fewer of them."""
        if len(rows) == len(self.lengths) and (rows == np.arange(len(rows))).all():
            return
        self.cache.reorder(rows, self.lengths)
        self.lengths, self._prompts = self.lengths[rows], self._prompts[rows]

    def add(self, other: Decoder) -> None:
        """One row more, which is the only one of `other`."""
        self._own.add(other._own, int(other.lengths[0]))
        self.lengths = np.append(self.lengths, other.lengths)
        self._prompts = np.append(self._prompts, other._prompts)

    def remove(self, row: int) -> None:
        """One row less; the last takes its place."""
        last = len(self.lengths) - 1
        if not last:
            self._own.clear()
            self.lengths = self._prompts = np.zeros(0, np.int64)
            return
        rows = np.arange(last)
        rows[row:][:1] = last
        self.reorder(rows)

    def give(self, row: int, other: Decoder) -> None:
        """The only row of `other` becomes one of ours."""
        other.lengths = self.lengths[row : row + 1].copy()
        other._own.copy(self._own, row, 0, int(other.lengths[0]))

    def room(self, most: int) -> None:
        """Let the sequences grow up to `most` positions, with what they hold already."""
        self.cache.grow(most, int(self.lengths.max(initial=0)))

    @property
    def held(self) -> int:
        """Positions that the cache holds of its longest row."""
        return int(self.lengths.max(initial=0)) - (0 if self.cache.fixed else self._gone)

    def slide(self, kept: int) -> None:
        """Forget all but the last `kept` positions of the only row, which goes on where it was."""
        gone = self.held - min(kept, self.held)
        self.cache.slide(gone, self.held)
        self._gone += gone
        if self.cache.fixed:  # there `lengths` counts slots
            self.lengths = self.lengths - gone

    def cut(self, length: int) -> None:
        """Only the first row, and of it the first `length` positions, as if none had followed."""
        self.reorder(np.zeros(1, np.int64))
        self.back(length)


def assemble(table: Table, rows: Sequence[Sequence[np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """Prompts as one batch; a row is token ids [n] and embeddings [n, hidden], in their order.

    Returns:
        Embeddings [rows, longest, hidden], shorter rows padded with zeros on the right, and the
        length of each row.
    """
    joined = [
        np.concatenate([piece if piece.ndim > 1 else table(piece) for piece in row]) for row in rows
    ]
    lengths = np.array([len(row) for row in joined], np.int64)
    embeds = np.zeros((len(joined), int(lengths.max()), joined[0].shape[1]), np.float32)
    for i, row in enumerate(joined):
        embeds[i, : len(row)] = row
    return embeds, lengths


def woven(
    ids: Sequence[Sequence[int]], clips: Sequence[np.ndarray], markers: Markers | None = None
) -> list[np.ndarray]:
    """A row for `assemble`: ids before, between and after the embeddings [n, hidden] of clips."""
    if len(ids) != len(clips) + 1:
        raise ValueError(f"{len(clips)} clips have {len(clips) + 1} pieces of text, not {len(ids)}")
    row: list[np.ndarray] = []
    for piece, clip in zip(ids, [*clips, None], strict=True):
        row.append(np.array(piece, np.int64))
        if clip is not None:
            row += markers.woven(clip) if markers else [clip]
    return row
