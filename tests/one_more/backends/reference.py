"""ONNX's own evaluator in numpy: slow, and what the standard says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from alm.artifacts.part import Part
from alm.onnxfile import summary
from alm.session import BackendOptions, Feed, Kept, Session

PROVIDERS = {"reference": "numpy"}
ON_CPU = ("reference",)


def available() -> list[str]:
    """Always there."""
    return list(PROVIDERS)


def open_session(part: Part, folder: Path, options: BackendOptions) -> Session:
    """Open the graph of a part."""
    return ReferenceSession(folder / part.files[0].name)


@dataclass
class Handle(Kept):
    """An array."""

    array: np.ndarray


class ReferenceSession(Session):
    """One graph."""

    def __init__(self, graph: Path) -> None:
        from onnx.reference import ReferenceEvaluator

        self._evaluator = ReferenceEvaluator(str(graph))
        said = summary.read(graph)
        self.inputs, self.outputs = said.inputs, said.outputs

    def run(
        self, feeds: Mapping[str, Feed], keep: Mapping[str, Kept | None] | None = None
    ) -> dict[str, Any]:
        """See `Session.run`."""
        arrays = {n: f.array if isinstance(f, Handle) else f for n, f in feeds.items()}
        outputs: Any = self._evaluator.run(list(self.outputs), arrays)
        made = dict(zip(self.outputs, outputs, strict=True))
        return {name: Handle(each) if name in (keep or {}) else each for name, each in made.items()}

    def hold(self, array: np.ndarray) -> Handle:
        """See `Session.hold`."""
        return Handle(array)

    def fetch(self, kept: Kept) -> np.ndarray:
        """See `Session.fetch`."""
        assert isinstance(kept, Handle)
        return kept.array
