"""The artifacts opened: parts stitched by tensor name, a decoder that keeps its cache."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from alm import backends, graphfile, verify
from alm.backends._session import EngineOptions, Kept, OneRowChunks, RowByRow, Session
from alm.errors import BadArtifacts, BadPrompt
from alm.manifest import Manifest, Part
from alm.ports import CACHE_IN, CACHE_OUT, differences

CAPACITY_STEP = 64  # caches of fixed capacity come in multiples of this

Opener = Callable[[Path, EngineOptions], Session]


class Stages:
    """Milliseconds by stage, added up."""

    def __init__(self) -> None:
        self.ms: dict[str, float] = {}

    def add(self, stage: str, since: float) -> None:
        """Count the time since `since` (time.perf_counter) to a stage."""
        self.ms[stage] = self.ms.get(stage, 0.0) + (time.perf_counter() - since) * 1e3


def open_part(
    folder: Path, part: Part, options: EngineOptions, opener: Opener = backends.open_session
) -> Session:
    """Verify a part's files and open its graph.

    Raises:
        MissingFile, BadArtifacts: a file that is not what the manifest says, external data outside
            the folder, or a graph with other ports than the manifest's.
    """
    paths = [verify.check_file(folder, file.name, file.bytes, file.sha256) for file in part.files]
    listed = {file.name for file in part.files}
    verify.check_external(folder, graphfile.read(paths[0]), part.files[0].name, listed)
    session = opener(paths[0], options)
    for side, ours, theirs in (
        ("input", part.inputs, session.inputs),
        ("output", part.outputs, session.outputs),
    ):
        wrong = differences(ours, theirs, side)
        if wrong:
            raise BadArtifacts(f"{paths[0]} has other {side}s than the manifest: {wrong}")
    batches = {port.axes[0] for port in part.inputs.values() if port.axes}
    if batches == {1}:
        return RowByRow(session)
    return OneRowChunks(session) if part.chunk_rows == 1 else session


class Pipeline:
    """The parts before the decoder, in the order of the manifest.

    Each part takes its inputs by name out of what the parts before it made, so the runtime knows no
    model.
    """

    def __init__(self, parts: Sequence[Part], sessions: Mapping[str, Session]) -> None:
        self.parts, self.sessions = parts, sessions

    def lack(self, given: Iterable[str], wanted: Iterable[str]) -> str:
        """The first tensor that nothing makes, in words; "" when `wanted` can be made of `given`.

        Nothing is run.
        """
        there = set(given)
        for part in self.parts:
            absent = [name for name in part.inputs if name not in there]
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
        for part in self.parts:
            absent = [name for name in part.inputs if name not in tensors]
            if absent:
                there = ", ".join(tensors)
                raise BadArtifacts(
                    f"part {part.name} wants {', '.join(absent)}, but before it there is: {there}"
                )
            start = time.perf_counter()
            feeds = {name: tensors[name] for name in part.inputs}
            tensors = tensors | self.sessions[part.name].run(feeds)
            stages.add(part.name, start)
        return tensors


class Table:
    """Rows of the embedding table, read from the file as they are needed."""

    def __init__(self, path: Path) -> None:
        try:
            self.rows = np.load(path, mmap_mode="r", allow_pickle=False)
        except (ValueError, OSError, EOFError) as error:
            raise BadArtifacts(f"{path} is no readable table: {error}") from error
        if not isinstance(self.rows, np.ndarray):
            raise BadArtifacts(f"{path} is no table but an archive")
        if self.rows.ndim != 2 or self.rows.dtype.kind != "f":
            raise BadArtifacts(
                f"{path} is no table of floats [vocab, hidden] "
                f"but {self.rows.dtype} {list(self.rows.shape)}"
            )

    def __call__(self, token_ids: np.ndarray) -> np.ndarray:
        """Embeddings float32 [..., hidden] of ids [...].

        Raises:
            BadPrompt: a token that the table has no row for, such as one added for padding.
        """
        strange = token_ids[(token_ids < 0) | (token_ids >= len(self.rows))]
        if strange.size:
            raise BadPrompt(
                f"token {int(strange[0])} is none of the {len(self.rows)} that the model knows; "
                "leave special tokens out of the prompt"
            )
        return np.asarray(self.rows[token_ids], dtype=np.float32)


class Decoder:
    """The decoder graph and its cache; `step` and `reorder` are what decoding strategies need."""

    def __init__(self, session: Session, part: Part, table: Table) -> None:
        self.session, self.part, self.table = session, part, table
        self.lengths = np.zeros(0, np.int64)  # valid positions of each row in the cache
        self._cache: dict[str, Kept] = {}
        caches = {n: p for n, p in part.inputs.items() if n.startswith(CACHE_IN)}
        self._caches = caches
        self._fixed = any("capacity" in port.axes for port in caches.values())

    def start(self, rows: int, most: int) -> None:
        """An empty cache for `rows` sequences of at most `most` positions."""
        capacity = -(-most // CAPACITY_STEP) * CAPACITY_STEP
        sizes = {"batch": rows, "past": 0, "capacity": capacity}
        self.lengths = np.zeros(rows, np.int64)
        self._cache = {
            # Where the graph's batch is 1, rows are run one by one: there are `rows` all the same.
            name: self.session.hold(np.zeros((rows, *port.shape(sizes)[1:]), port.dtype))
            for name, port in self._caches.items()
        }

    def feed(self, embeds: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        """Logits [rows, vocab] after embeds [rows, seq, hidden], of which `lengths` are real."""
        outputs = {CACHE_OUT + name[len(CACHE_IN) :]: name for name in self._caches}
        feeds = {
            "inputs_embeds": np.ascontiguousarray(embeds, np.float32),
            "past_lengths": self.lengths,
            "seq_lengths": np.asarray(lengths, np.int64),
            **self._cache,
        }
        # A cache of fixed capacity is written in place, one that grows comes back as another.
        keep = {out: self._cache[name] if self._fixed else None for out, name in outputs.items()}
        made = self.session.run(feeds, keep)
        self._cache = {name: made[out] for out, name in outputs.items()}
        self.lengths = self.lengths + lengths
        return made["logits"][:, 0].astype(np.float32, copy=False)

    def step(self, token_ids: np.ndarray) -> np.ndarray:
        """Logits [rows, vocab] after one more token [rows] in every row."""
        ids = np.asarray(token_ids, np.int64)
        return self.feed(self.table(ids[:, None]), np.ones(len(ids), np.int64))

    def reorder(self, rows: np.ndarray) -> None:
        """Row i becomes a copy of what was row rows[i]; there may be more or fewer of them."""
        if len(rows) == len(self.lengths) and (rows == np.arange(len(rows))).all():
            return
        self.lengths = self.lengths[rows]
        self._cache = {
            name: self.session.hold(self.session.fetch(kept)[rows])
            for name, kept in self._cache.items()
        }


def assemble(
    table: Table, rows: Sequence[tuple[Sequence[int], np.ndarray, Sequence[int]]]
) -> tuple[np.ndarray, np.ndarray]:
    """Prompts of (ids before, audio [n, hidden], ids after) as one batch.

    Returns:
        Embeddings [rows, longest, hidden], shorter rows padded with zeros on the right, and the
        length of each row.
    """
    joined = [
        np.concatenate((table(np.array(a, np.int64)), audio, table(np.array(b, np.int64))))
        for a, audio, b in rows
    ]
    lengths = np.array([len(row) for row in joined], np.int64)
    embeds = np.zeros((len(joined), int(lengths.max()), joined[0].shape[1]), np.float32)
    for i, row in enumerate(joined):
        embeds[i, : len(row)] = row
    return embeds, lengths


def check_table(table: Table, manifest: Manifest) -> None:
    """The table is as wide and long as the manifest says."""
    want = (manifest.dimensions["vocab"], manifest.dimensions["hidden"])
    if table.rows.shape != want:
        raise BadArtifacts(f"the embedding table is {list(table.rows.shape)}, not {list(want)}")
