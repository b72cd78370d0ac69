"""An adapter's files as what the slots of the parts take."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import IO

import numpy as np

from alm.adapters.settings import MERGE, Settings, settings
from alm.artifacts import safetensors
from alm.artifacts.part import Part
from alm.artifacts.safetensors import Stored
from alm.errors import BadArtifacts
from alm.ports import MOST_RANK, RANK, SLOT

LEAF = re.compile(r"(?:base_model\.model\.|base_model\.)?(.+)\.lora_([AB])(?:\.[^.]+)?\.weight")
DECODER = "decoder"


@dataclass(frozen=True)
class Adapter:
    """Part -> the arrays that its slots take; parts that it leaves alone are not in it."""

    name: str
    arrays: Mapping[str, Mapping[str, np.ndarray]]
    heard: bytes  # tells apart what the parts before the decoder make; b"" where they are the base
    told: bytes  # the same of the decoder


NONE = Adapter("", {}, b"", b"")  # the base model


@dataclass(frozen=True)
class Place:
    """Where a module's delta goes."""

    part: Part
    group: str
    layer: int
    names: tuple[str, ...]


def places(parts: Sequence[Part]) -> dict[str, Place]:
    """Every name that a file may have for a module with a slot."""
    return {
        name: Place(part, group, layer, names)
        for part in parts
        for group, modules in part.slots.items()
        for layer, names in enumerate(modules)
        for name in names
    }


def port(part: str, group: str, side: str) -> str:
    """The input that takes one side (down or up) of a group's deltas."""
    return f"{SLOT}{part}.{group}.{side}"


def load(
    name: str, config: bytes, stream: IO[bytes], size: int, parts: Sequence[Part], where: str
) -> Adapter:
    """The adapter in an open safetensors file of `size` bytes, its config beside it.

    Raises:
        BadArtifacts: something else than plain LoRA, of modules that have no slot, or damaged.
    """
    scales = settings(config, f"the config of {where}")
    stored = safetensors.header(stream, size, where)
    pairs = _pairs(stored, places(parts), where)
    ranks: dict[str, int] = {}
    for place, down, _ in pairs:
        ranks[place.part.name] = max(ranks.get(place.part.name, 1), stored[down].shape[0])
    arrays: dict[str, dict[str, np.ndarray]] = {}
    for part in parts:
        if part.name in ranks:
            sizes = {RANK: ranks[part.name]}
            ours = (n for n in part.inputs if n.startswith(SLOT))
            arrays[part.name] = {n: np.zeros(part.inputs[n].shape(sizes), np.float32) for n in ours}
    for place, down, up in pairs:
        _put(arrays[place.part.name], place, stored, (down, up), scales, stream, where)
    digest = hashlib.sha256(config)
    stream.seek(0)
    while piece := stream.read(2**20):
        digest.update(piece)
    key = digest.digest()
    heard = any(part.name in arrays and part.role != DECODER for part in parts)
    told = any(part.name in arrays and part.role == DECODER for part in parts)
    return Adapter(name, arrays, key if heard else b"", key if told else b"")


def _pairs(
    stored: Mapping[str, Stored], there: Mapping[str, Place], where: str
) -> list[tuple[Place, str, str]]:
    """Each module's place and its two tensors, whose shapes are right."""
    halves: dict[str, dict[str, str]] = {}
    for tensor in stored:
        match = LEAF.fullmatch(tensor)
        if not match:
            raise BadArtifacts(f"{where} holds {tensor:.120}, which is no plain LoRA; {MERGE}")
        halves.setdefault(match[1], {})[match[2]] = tensor
    pairs: list[tuple[Place, str, str]] = []
    for module, sides in halves.items():
        if module not in there:
            raise BadArtifacts(
                f"{where} changes {module:.120}, which has no slot in this export; export the "
                "model with: --adapter NAME=DIR"
            )
        if len(sides) != 2:
            raise BadArtifacts(f"{where} holds half of {module:.120}")
        place, (a, b) = there[module], (stored[sides[s]].shape for s in "AB")
        inner = place.part.inputs[port(place.part.name, place.group, "down")].axes[1]
        outer = place.part.inputs[port(place.part.name, place.group, "up")].axes[2]
        fits = len(a) == len(b) == 2 and a[0] == b[1] and (a[1], b[0]) == (inner, outer)
        if not fits or not 1 <= a[0] <= MOST_RANK:
            raise BadArtifacts(
                f"{where} has {list(a)} and {list(b)} for {module:.120}, which takes {inner} and "
                f"gives {outer}, at a rank of 1 to {MOST_RANK}"
            )
        pairs.append((place, sides["A"], sides["B"]))
    if not pairs:
        raise BadArtifacts(f"{where} holds no LoRA")
    return pairs


def _put(
    arrays: dict[str, np.ndarray],
    place: Place,
    stored: Mapping[str, Stored],
    tensors: tuple[str, str],
    scales: Settings,
    stream: IO[bytes],
    where: str,
) -> None:
    """Fill a layer of the group: x down up is what is added, the scale in `up`."""
    down, up = (safetensors.read(stream, stored[name], where) for name in tensors)
    rank, part = len(down), place.part.name
    arrays[port(part, place.group, "down")][place.layer, :, :rank] = down.T
    scaled = np.float32(scales.scale(place.names, rank)) * up.T
    arrays[port(part, place.group, "up")][place.layer, :rank] = scaled
