"""What a precision stores and needs, as data: a lever states it, the export writes it down.

Whoever decides by a precision (targets, planner, lint, backends) reads it here, in `Part.storage`
for a part of the folder and in `Manifest.levers` for what else could be exported.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace

from alm.onnxfile.summary import BITS

PLAIN = "fp32"  # the precision without any lever
FLOAT = "float32"
ROLES = ("encoder", "bridge", "decoder", "table")  # that levers may change: not front ends


@dataclass(frozen=True)
class Codes:
    """How weights lie in a graph: the type of an element, and what a block of them shares."""

    dtype: str = FLOAT  # ONNX's name of it
    block: int = 0  # weights with a scale of their own; 0: all of an output, or of a row
    scale: str = ""  # type of the scales; "" for none
    zero_point: bool = False  # a block has one, of the weights' type

    @property
    def bits(self) -> float:
        """Of a weight, with its share of scale and zero point."""
        shared = BITS.get(self.scale, 0) + (BITS[self.dtype] if self.zero_point else 0)
        return BITS[self.dtype] + (shared / self.block if self.block else 0)


@dataclass(frozen=True)
class Storage:
    """How a part is stored, and what reads it. Without arguments: in float32, by any backend."""

    layers: Codes = field(default_factory=Codes)
    head: Codes | None = None  # of `lm_head`, and of products named in `as_head`; None: as layers
    as_head: tuple[str, ...] = ()  # words in the names of other products that are stored as it
    computes: tuple[str, ...] = ()  # types of numbers besides float32 in the graph; float16 ends
    # at 65504, which is why front ends and norms are left out of it
    cache: str = FLOAT  # type of the KV cache
    operators: tuple[str, ...] = ()  # that the lever brings into the graph, "domain::Name"
    opset: int = 0  # the least that knows them; 0: any
    backends: tuple[str, ...] = ()  # that alone run the graph; empty for any
    fitted: bool = False  # to clips that were heard: taken only where it is asked for
    bound: float = 0.0  # the most it may cost, as `parity.Parity.rms`; 0: it must be exact

    @property
    def of_head(self) -> Codes:
        """How `lm_head` is stored."""
        return self.head or self.layers

    @property
    def plain(self) -> bool:
        """Whether all that there is is stored in float32, and read by any backend."""
        return replace(self, bound=0.0) == PLAINEST


PLAINEST = Storage()
Roles = Mapping[str, Storage]  # by role, what a lever makes of it; no entry: it is left alone
Levers = Mapping[str, Roles]  # by the lever's name
Takes = Callable[[Storage], bool]


@dataclass(frozen=True)
class Wanted:
    """A precision by what it stores: bits of a weight in the layers, scales not counted.

    `head` are those that `lm_head` has at least; 0 for any number.
    """

    bits: int = BITS[FLOAT]
    head: int = 0

    def fits(self, storage: Storage) -> bool:
        """Whether so much is stored."""
        head = BITS[storage.of_head.dtype]
        return BITS[storage.layers.dtype] == self.bits and head >= self.head


def everywhere(storage: Storage, **others: Storage) -> dict[str, Storage]:
    """The same for every role that levers change, but for those given."""
    return dict.fromkeys(ROLES, storage) | others


def joined(storages: Iterable[Storage]) -> Storage:
    """What levers pulled one after another make: their fewest bits, and all that any needs."""
    total = PLAINEST
    for storage in storages:
        leaner = storage if storage.layers.bits < total.layers.bits else total
        total = Storage(
            layers=leaner.layers,
            head=leaner.head,
            as_head=leaner.as_head,
            computes=_union(total.computes, storage.computes),
            cache=total.cache if storage.cache == FLOAT else storage.cache,
            operators=_union(total.operators, storage.operators),
            opset=max(total.opset, storage.opset),
            backends=_union(total.backends, storage.backends),
            fitted=total.fitted or storage.fitted,
            bound=total.bound + storage.bound,
        )
    return total


def closest_first(levers: Levers, role: str, unasked: bool = False) -> list[str]:
    """The precisions that change parts of a role, fp32 first and the most bits before fewer.

    With `unasked` none that is fitted to clips.
    """

    def rank(name: str) -> tuple[float, float, str]:
        storage = levers[name][role]
        return -storage.layers.bits, storage.bound, name

    known = [n for n in levers if role in levers[n] and not (unasked and levers[n][role].fitted)]
    return [PLAIN, *sorted(known, key=rank)]


def choose(levers: Levers, role: str, wanted: Wanted, takes: Takes) -> str:
    """The precision for parts of a role that stores what is wanted; "" where there is none.

    None that is fitted to clips. Of several that are taken: one that was made for a backend before
    one for any, then the fewest bits, then the one that may cost the least in all roles.
    """
    if wanted.bits == BITS[FLOAT]:
        return PLAIN
    stored = {name: roles[role] for name, roles in levers.items() if role in roles}
    unasked = {name: storage for name, storage in stored.items() if not storage.fitted}
    fitting = [name for name, storage in unasked.items() if wanted.fits(storage) and takes(storage)]

    def rank(name: str) -> tuple[bool, float, float, str]:
        costs = sum(storage.bound for storage in levers[name].values())
        return not stored[name].backends, stored[name].layers.bits, costs, name

    return min(fitting, key=rank, default="")


def any_backend(storage: Storage) -> bool:
    """Whether no backend alone runs it."""
    return not storage.backends


def _union(one: tuple[str, ...], other: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*one, *other)))
