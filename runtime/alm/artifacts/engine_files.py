"""The manifest's engines: which program, GPU and graph made a file that is executed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from alm.parsing import File, Misshapen, count, file, is_a, need

Range = tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]  # shapes: least, usual, most
Profile = dict[str, Range]  # of every input with an axis that is not fixed


@dataclass(frozen=True)
class Maker:
    """What an engine belongs to: it runs nowhere else, unless gpu is "", which is any."""

    backend: str  # tensorrt or tensorrt-rtx
    version: str
    system: str  # Linux x86_64
    gpu: str
    compute_capability: str  # 8.7

    def __str__(self) -> str:
        on = f"{self.gpu} (compute capability {self.compute_capability})" if self.gpu else "any GPU"
        return f"{self.backend} {self.version} on {self.system} for {on}"


@dataclass(frozen=True)
class Engine:
    """One part, built."""

    part: str
    file: File
    graph: str  # sha256 over those of the part's files: of another graph it is the wrong engine
    maker: Maker
    profiles: tuple[Profile, ...]
    fixed: dict[str, int] = field(default_factory=dict)  # axes that the graph has a name for
    seconds: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """For the manifest."""
        return {
            "part": self.part,
            **vars(self.maker),
            "file": vars(self.file),
            "graph": self.graph,
            "profiles": [{n: list(map(list, r)) for n, r in p.items()} for p in self.profiles],
            "fixed": self.fixed,
            "seconds": self.seconds,
        }


def fingerprint(files: Iterable[File]) -> str:
    """sha256 over those of a part's files, in their order."""
    return hashlib.sha256("\n".join(part_file.sha256 for part_file in files).encode()).hexdigest()


def from_json(plain: Any, number: int) -> Engine:
    """Raises Misshapen where something is missing or of another kind."""
    part = need(plain, "part", str, where=f"engine {number}")
    where = f"the engine of part {part:.80}"
    fixed = need(plain, "fixed", dict, {}, where)
    fields = {name: need(plain, name, str, where=where) for name in Maker.__dataclass_fields__}
    return Engine(
        part=part,
        file=file(need(plain, "file", dict, where=where), where),
        graph=need(plain, "graph", str, where=where),
        maker=Maker(**fields),
        profiles=tuple(_profile(p, where) for p in need(plain, "profiles", list, where=where)),
        fixed={n: count(fixed, n, 1, where=where) for n in fixed},
        seconds=float(need(plain, "seconds", (int, float), 0.0, where)),
    )


def _profile(plain: Any, where: str) -> Profile:
    if not isinstance(plain, dict):
        raise Misshapen(f"a profile of {where} is {plain!r:.80}, not an object")
    return {name: _range(shapes, where) for name, shapes in plain.items()}


def _range(plain: Any, where: str) -> Range:
    fits = (
        isinstance(plain, list)
        and len(plain) == 3
        and all(isinstance(shape, list) and len(shape) == len(plain[0]) for shape in plain)
        and all(is_a(n, int) and 0 <= n < 2**31 for shape in plain for n in shape)
    )
    if not fits:
        raise Misshapen(f"a range of {where} is {plain!r:.80}, not three shapes")
    least, usual, most = (tuple(shape) for shape in plain)
    return least, usual, most
