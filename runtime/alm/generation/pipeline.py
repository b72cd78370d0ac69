"""The artifacts opened: parts stitched by tensor name, a decoder that keeps its cache."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait

import numpy as np

from alm.artifacts.manifest import Manifest, Part
from alm.errors import BadArtifacts
from alm.generation.embedding_table import Table
from alm.generation.kv_cache import Cache
from alm.live.state import carried, fresh, taken
from alm.ports import FIRST, PROMPT, given_as
from alm.session import Session
from alm.text.markers import Markers
from alm.timings import Stages as Stages


class Pipeline:
    """The parts before the decoder, in the order of the manifest.

    Each part takes its inputs by name out of what the parts before it made, so the runtime knows no
    model. A part with a window of fixed size is run once for each window that its input holds; what
    it makes of them follows each other along the second axis.
    """

    def __init__(
        self, parts: Sequence[Part], sessions: Mapping[str, Session], at_once: int = 1
    ) -> None:
        """`at_once`: so many parts that do not wait for each other may run side by side."""
        self.parts, self.sessions, self.at_once = parts, sessions, at_once

    def lack(self, given: Iterable[str], wanted: Iterable[str]) -> str:
        """The first tensor that nothing makes, in words; "" when `wanted` can be made of `given`.

        Nothing is run.
        """
        there = set(given)
        for part in self.parts:
            absent = [name for name in taken(part.inputs) if name not in there]
            if absent:
                return f"part {part.name} wants {', '.join(absent)}, which no part before it makes"
            there |= part.outputs.keys()
        absent = [name for name in wanted if name not in there]
        return f"no part makes {', '.join(absent)}" if absent else ""

    def forward(
        self, tensors: dict[str, np.ndarray], stages: Stages | None = None
    ) -> dict[str, np.ndarray]:
        """All tensors after the last part, those that went in as well.

        Raises:
            BadArtifacts: a part wants a tensor that no part before it makes.
        """
        stages = stages or Stages()
        there = list(tensors)
        for part in self.parts:
            absent = [name for name in taken(part.inputs) if name not in there]
            if absent:
                raise BadArtifacts(
                    f"part {part.name} wants {', '.join(absent)}, but before it there is: "
                    + ", ".join(there)
                )
            there += part.outputs
            stages.add_ms(part.name, 0.0)  # the order of the manifest, whichever is done first
        if self.at_once > 1:
            return self._side_by_side(tensors, stages)
        for part in self.parts:
            tensors = tensors | self._run(part, tensors, stages)
        return tensors

    def _run(
        self, part: Part, tensors: Mapping[str, np.ndarray], stages: Stages
    ) -> dict[str, np.ndarray]:
        start = time.perf_counter()
        session, feeds = self.sessions[part.name], {n: tensors[n] for n in taken(part.inputs)}
        feeds |= fresh(part.inputs, len(next(iter(feeds.values()))))  # what is given is the whole
        outputs = [session.run(window) for window in _windows(part, feeds)]
        stages.add(part.name, start)
        if len(outputs) == 1:
            return outputs[0]
        return {name: _joined([window[name] for window in outputs]) for name in outputs[0]}

    def _side_by_side(
        self, tensors: Mapping[str, np.ndarray], stages: Stages
    ) -> dict[str, np.ndarray]:
        """Every part is run as soon as what it takes is there, `at_once` of them at a time."""
        start, before = time.perf_counter(), sum(stages.ms[part.name] for part in self.parts)
        available, waiting = dict(tensors), list(self.parts)
        running: set[Future[dict[str, np.ndarray]]] = set()
        with ThreadPoolExecutor(self.at_once) as pool:
            while waiting or running:
                ready = [part for part in waiting if {*available} >= {*taken(part.inputs)}]
                for part in ready[: self.at_once - len(running)]:
                    waiting.remove(part)
                    running.add(pool.submit(self._run, part, dict(available), stages))
                done, running = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    available |= future.result()
        parts = sum(stages.ms[part.name] for part in self.parts) - before
        stages.overlap_ms += parts - (time.perf_counter() - start) * 1e3
        return available


def _windows(part: Part, feeds: dict[str, np.ndarray]) -> Iterator[dict[str, np.ndarray]]:
    """The feeds, as many times as the part's fixed window goes into them."""
    cuts: dict[str, tuple[int, int]] = {}  # input -> its axis of windows, and a window's size
    count = 1
    for name, port in part.inputs.items():
        for axis, size in list(enumerate(port.axes))[1:]:
            there = feeds[name].shape[axis] if axis < feeds[name].ndim else 0
            if isinstance(size, int) and size and there > size and there % size == 0:
                cuts[name], count = (axis, size), max(count, there // size)
    for i in range(count):
        yield feeds | {
            name: feeds[name].take(range(i * size, (i + 1) * size), axis)
            for name, (axis, size) in cuts.items()
        }


def _joined(outputs: Sequence[np.ndarray]) -> np.ndarray:
    return np.concatenate(outputs, axis=1) if outputs[0].ndim > 1 else outputs[-1]


def at_once(threads: int, cores: int) -> int:
    """How many parts may run side by side, each with so many threads (0: all cores).

    Two where each has cores of its own. A part with all cores is left alone: it would fight with
    the other for them. Measured on two cores of an EPYC, of which another process kept one busy
    most of the time, on the demo's encoders and 10 s (milliseconds, best and median of 60):
    one after the other with 2 threads 60 and 98, with 1 thread 45 and 46; side by side with 2
    threads 66 and 93, with 1 thread 32 and 47.
    """
    return 2 if threads and 2 * threads <= cores else 1


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
    ) -> None:
        """With `most_fed` of 0 a prompt of any length is fed at once.

        `switches`: a prompt of more positions has other rotary frequencies from its first one on.
        `conditions`: by the input's name, where the graph has it, a number for every row.
        """
        self.session, self.part, self.table = session, part, table
        self.most_fed, self.switches = most_fed, switches
        self.lengths = np.zeros(0, np.int64)  # valid positions of each row in the cache
        self.conditions: dict[str, float] = {}
        self.told(**(conditions or {}))
        self.cache = Cache(session, carried(part.inputs))
        self._gone = 0  # positions before those that the cache still holds
        self._prompts = self.lengths  # of each row's prompt, with all that was before it

    def told(self, **conditions: float) -> None:
        """From the next start on these numbers hold, where the graph has inputs of their names."""
        self.conditions |= {n: v for n, v in conditions.items() if n in self.part.inputs}

    def start(self, rows: int, most: int) -> None:
        """An empty cache for `rows` sequences of at most `most` positions."""
        self.lengths = self._prompts = np.zeros(rows, np.int64)
        self._gone = 0
        self.cache.start(rows, most)

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

    def _run(self, embeds: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        cache = self.cache
        outputs = {given_as(name): name for name in cache.kept}
        feeds = {
            "inputs_embeds": np.ascontiguousarray(embeds, np.float32),
            "past_lengths": self.lengths,
            "seq_lengths": np.asarray(lengths, np.int64),
            **cache.kept,
        }
        numbers = self.conditions | ({FIRST: self._gone} if FIRST in self.part.inputs else {})
        feeds |= {n: np.full(len(embeds), v, np.float32) for n, v in numbers.items()}
        if PROMPT in self.part.inputs:
            feeds[PROMPT] = self._prompts
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

    def reorder(self, rows: np.ndarray) -> None:
        """Row i becomes a copy of what was row rows[i]; there may be more or fewer of them."""
        if len(rows) == len(self.lengths) and (rows == np.arange(len(rows))).all():
            return
        self.cache.reorder(rows, self.lengths)
        self.lengths, self._prompts = self.lengths[rows], self._prompts[rows]

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
        self.cache.cut(length)
        self.lengths = np.array([length], np.int64)


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


def check_table(table: Table, manifest: Manifest) -> None:
    """The table's shape is the manifest's: it may have rows for tokens that never come."""
    dimensions = manifest.facts.dimensions
    want = (dimensions.table or dimensions.vocab, dimensions.hidden)
    if table.shape != want:
        raise BadArtifacts(f"the embedding table is {list(table.shape)}, not {list(want)}")
