"""Ports: what a part takes and gives. The tensor's name is the joint between two parts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

CAPACITY_STEP = 64  # caches of fixed capacity come in multiples of this
SPARE = 256  # positions that the cache of a live run holds beside its window
CACHE_IN = "past_key_values."
CACHE_OUT = "present."
FIRST = "first_position"  # of a decoder: the position that slot 0 of a row's cache has by now
DELAY = "delay"  # of a decoder: the steps by which its words follow their sound
FROM_END = "logits_from_end"  # of a decoder: which logits, 0 is the last real position's
MOST_FROM_END = 16  # logits of one row at once: a prompt wants one, drafts as many as they have
PROMPT = "prompt_lengths"  # of a decoder whose rotary frequencies are those of the row's prompt
SLOT = "lora."  # begins the inputs that take an adapter: lora.PART.GROUP.down and .up
RANK = "rank"  # the axis of those that is as long as the adapter's rank
MOST_RANK = 256


def is_carried(name: str) -> bool:
    """Whether a port takes what the run before gave: of a KV cache, or of a state."""
    return name.startswith(CACHE_IN)


def is_slot(name: str) -> bool:
    """Whether a port takes an adapter's weights, which are those of every row."""
    return name.startswith(SLOT)


def blank(ports: Mapping[str, Port]) -> dict[str, np.ndarray]:
    """What the slots of a part take where no adapter is asked for: zeros of rank 1."""
    return {name: port.empty({RANK: 1}) for name, port in ports.items() if is_slot(name)}


def given_as(name: str) -> str:
    """The output that a carried input is fed from at the next run."""
    return CACHE_OUT + name[len(CACHE_IN) :]


def taken_as(name: str) -> str:
    """The input that takes at the next run what this output gives; "" for one that none takes."""
    return CACHE_IN + name[len(CACHE_OUT) :] if name.startswith(CACHE_OUT) else ""


@dataclass(frozen=True)
class Port:
    """A tensor at the edge of a graph.

    An axis is a number, or the name of a dynamic one. `counts` names the axis of which an integer
    port gives the valid part (its values lie in 0 .. size of that axis). `below` says of other
    integers, ids, that they lie in 0 .. below - 1.
    """

    dtype: str  # numpy's name: float32, float16, int64, ...
    axes: tuple[int | str, ...]
    counts: str = ""
    below: int = 0  # 0: no ids

    def fix(self, **sizes: int) -> Port:
        """The same port with some dynamic axes made numbers."""
        axes = tuple(sizes.get(axis, axis) if isinstance(axis, str) else axis for axis in self.axes)
        return Port(self.dtype, axes, self.counts, self.below)

    def shape(self, sizes: Mapping[str, int]) -> tuple[int, ...]:
        """The port's shape when its dynamic axes have these sizes."""
        return tuple(sizes[axis] if isinstance(axis, str) else axis for axis in self.axes)

    def empty(self, sizes: Mapping[str, int]) -> np.ndarray:
        """Zeros of the port's shape: an empty or a fresh cache."""
        return np.zeros(self.shape(sizes), np.dtype(self.dtype))

    def to_json(self) -> dict[str, Any]:
        """The port as plain data, for the manifest."""
        plain: dict[str, Any] = {"dtype": self.dtype, "axes": list(self.axes)}
        plain |= {"counts": self.counts} if self.counts else {}
        return plain | ({"below": self.below} if self.below else {})


@dataclass(frozen=True)
class Span:
    """How long a dynamic axis may be: least, usual and most (TensorRT's min, opt and max)."""

    least: int
    usual: int
    most: int


def differences(ours: Mapping[str, Port], theirs: Mapping[str, Port], side: str) -> str:
    """What differs between the manifest's ports and the graph's, in words; "" when nothing does."""
    # An output may be known better by the graph; an input must take what the manifest promises.
    named = int if side == "output" else str
    wrong = [f"{name} is not in the graph" for name in ours if name not in theirs]
    wrong += [f"{name} is not in the manifest" for name in theirs if name not in ours]
    for name in ours.keys() & theirs.keys():
        mine, its = ours[name], theirs[name]
        pairs = list(zip(mine.axes, its.axes, strict=False))
        same = len(mine.axes) == len(its.axes) and all(
            a == b if isinstance(a, int) else isinstance(b, (str, named)) for a, b in pairs
        )
        if mine.dtype != its.dtype or not same:
            wrong.append(
                f"{name} is {its.dtype} {list(its.axes)}, not {mine.dtype} {list(mine.axes)}"
            )
    return "; ".join(sorted(wrong))
