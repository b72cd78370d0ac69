"""The parts before the decoder, stitched by tensor name."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait

import numpy as np

from alm.artifacts.embedding_table import Table
from alm.artifacts.manifest import Manifest, Part
from alm.errors import BadArtifacts
from alm.live.state import fresh, taken
from alm.ports import blank
from alm.session import Session
from alm.timings import Stages as Stages

Worn = Mapping[str, Mapping[str, np.ndarray]]  # part -> what an adapter puts into its slots


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
        self._blank = {part.name: blank(part.inputs) for part in parts}

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
        self,
        tensors: dict[str, np.ndarray],
        stages: Stages | None = None,
        worn: Worn | None = None,
    ) -> dict[str, np.ndarray]:
        """All tensors after the last part, those that went in as well.

        `worn`: an adapter's weights, for the parts that it changes.

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
        slots = {**self._blank, **(worn or {})}
        if self.at_once > 1:
            return self._side_by_side(tensors, stages, slots)
        for part in self.parts:
            tensors = tensors | self._run(part, tensors, stages, slots)
        return tensors

    def _run(
        self, part: Part, tensors: Mapping[str, np.ndarray], stages: Stages, slots: Worn
    ) -> dict[str, np.ndarray]:
        start = time.perf_counter()
        session, feeds = self.sessions[part.name], {n: tensors[n] for n in taken(part.inputs)}
        feeds |= fresh(part.inputs, len(next(iter(feeds.values()))))  # what is given is the whole
        outputs = [session.run({**w, **slots[part.name]}) for w in _windows(part, feeds)]
        stages.add(part.name, start)
        if len(outputs) == 1:
            return outputs[0]
        return {name: _joined([window[name] for window in outputs]) for name in outputs[0]}

    def _side_by_side(
        self, tensors: Mapping[str, np.ndarray], stages: Stages, slots: Worn
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
                    running.add(pool.submit(self._run, part, dict(available), stages, slots))
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
    for name in feeds:
        port = part.inputs[name]
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


def check_table(table: Table, manifest: Manifest) -> None:
    """The table's shape is the manifest's: it may have rows for tokens that never come."""
    dimensions = manifest.facts.dimensions
    want = (dimensions.table or dimensions.vocab, dimensions.hidden)
    if table.shape != want:
        raise BadArtifacts(f"the embedding table is {list(table.shape)}, not {list(want)}")
