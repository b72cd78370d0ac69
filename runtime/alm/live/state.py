"""What parts before the decoder carry from piece to piece: arrays that are made once."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

import numpy as np

from alm.artifacts.part import Part
from alm.ports import Port, blank, is_carried, is_slot, taken_as
from alm.session import Feed, Kept, Session
from alm.timings import Stages


def carried(ports: Mapping[str, Port]) -> dict[str, Port]:
    """The ports of a part that take what it gave at the piece before."""
    return {name: port for name, port in ports.items() if is_carried(name)}


def taken(ports: Mapping[str, Port]) -> list[str]:
    """The inputs that other parts, or the caller, give."""
    return [name for name in ports if not is_carried(name) and not is_slot(name)]


def fresh(ports: Mapping[str, Port], rows: int) -> dict[str, np.ndarray]:
    """The state before any piece, for so many rows: zeros, by the input's name."""
    return {name: port.empty({"batch": rows}) for name, port in carried(ports).items()}


class State:
    """One part's state of one row: two buffers, of which a run reads one and fills the other."""

    def __init__(self, part: Part, session: Session) -> None:
        self.part, self.session = part, session
        self._now, self._next = (
            {name: session.hold(array) for name, array in fresh(part.inputs, 1).items()}
            for _ in range(2)
        )
        self._blank = blank(part.inputs)
        self._outputs = {
            name: taken_as(name) for name in part.outputs if taken_as(name) in self._now
        }  # fmt: skip

    @property
    def bytes(self) -> int:
        """Of both buffers."""
        held = [*self._now.values(), *self._next.values()]
        return sum(self.session.fetch(kept).nbytes for kept in held)

    def run(self, tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """What the part makes of a piece, its state aside."""
        feeds: dict[str, Feed] = {name: tensors[name] for name in taken(self.part.inputs)}
        places: dict[str, Kept | None] = {out: self._next[n] for out, n in self._outputs.items()}
        made = self.session.run(feeds | self._now | self._blank, places)
        self._next = self._now
        # A backend that fills no buffer of ours has given another.
        self._now = {name: made.pop(out) for out, name in self._outputs.items()}
        return made


class Chain:
    """The parts before the decoder for one row, each with its state."""

    def __init__(
        self,
        parts: Sequence[Part],
        sessions: Mapping[str, Session],
        stages: Stages | None = None,
    ) -> None:
        """`stages` counts the time of each part, by its name."""
        self.states = [State(part, sessions[part.name]) for part in parts]
        self.stages = stages or Stages()

    def run(self, pcm: np.ndarray) -> np.ndarray:
        """Samples float32 [n], whole steps -> their embeddings float32 [steps, hidden]."""
        tensors = {"pcm": pcm[None]}
        for state in self.states:
            start = time.perf_counter()
            tensors |= state.run(tensors)
            self.stages.add(state.part.name, start)
        return np.asarray(tensors["audio_embeds"][0], np.float32)
