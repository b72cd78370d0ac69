"""Torch against graph: the worst error over batches and lengths, never the mean."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from alm.backends import ort
from alm.backends._session import EngineOptions, OneRowChunks, Session
from alm.errors import ExportFailed
from alm.ports import Port
from exporters import feeds
from wrappers import Wrapper

FP32_TOLERANCE = 1e-3


@dataclass
class Parity:
    """How far a graph is from its float32 module, at the worst place of the worst case."""

    worst_abs: float = 0.0
    worst_rel: float = 0.0  # the same, as a share of the largest value of that output
    output: str = ""  # where the worst is
    cases: int = 0

    def to_json(self) -> dict[str, Any]:
        """For the manifest."""
        return asdict(self)

    @property
    def good(self) -> bool:
        """Within what float32 may cost: 1e-3, of the largest value where that is above 1."""
        return bool(min(self.worst_abs, self.worst_rel) <= FP32_TOLERANCE)

    def take(self, name: str, got: np.ndarray, want: np.ndarray) -> None:
        """Compare one output.

        Raises:
            ExportFailed: another shape, or values that are not finite where they should be.
        """
        if got.shape != want.shape:
            raise ExportFailed(f"{name} is {list(got.shape)}, not {list(want.shape)}")
        got, want = got.astype(np.float64), want.astype(np.float64)
        if not np.isfinite(got).all():
            raise ExportFailed(f"{name} holds values that are not finite")
        error = float(np.abs(got - want).max(initial=0.0))
        if error >= self.worst_abs:
            self.worst_abs, self.output = error, name
            self.worst_rel = error / max(float(np.abs(want).max(initial=0.0)), 1e-30)


class Truth:
    """What the untouched module says to random feeds, computed once and before any engine loads.

    Both at once would hold the weights twice.
    """

    def __init__(self, part: Wrapper, dynamic_batch: bool) -> None:
        self.outputs, self.chunk_rows = dict(part.outputs), part.chunk_rows
        self.cases: list[tuple[feeds.Feeds, list[np.ndarray]]] = []
        for seed, sizes in enumerate(feeds.cases(part.inputs, part.spans, dynamic_batch)):
            example = feeds.make(part.inputs, part.spans, sizes, seed)
            with torch.no_grad():
                made = part(*(torch.from_numpy(array) for array in example.values()))
            wanted = made if isinstance(made, tuple) else (made,)
            self.cases.append((example, [tensor.numpy() for tensor in wanted]))


def measure(graph: Path, truth: Truth, inputs: Mapping[str, Port]) -> Parity:
    """Run the graph on the feeds of the untouched module.

    Args:
        graph: the graph, whose inputs are `inputs` (their dtypes may be narrower than the part's).
        truth: the module in float32.

    Raises:
        ExportFailed: the graph does not load, run, or gives other shapes.
    """
    session: Session = ort.open_session(graph, EngineOptions("cpu"))
    if truth.chunk_rows == 1:
        session = OneRowChunks(session)
    worst = Parity()
    for example, wanted in truth.cases:
        got = session.run({n: example[n].astype(port.dtype) for n, port in inputs.items()})
        for (name, port), want in zip(truth.outputs.items(), wanted, strict=True):
            worst.take(name, filled(got[name], port, example), filled(want, port, example))
        worst.cases += 1
    return worst


def filled(array: np.ndarray, port: Port, example: feeds.Feeds) -> np.ndarray:
    """The slots of a fixed capacity that hold something: what is in the others has no meaning."""
    if "capacity" not in port.axes:
        return array
    axis = port.axes.index("capacity")
    lengths = example["past_lengths"] + example["seq_lengths"]
    shape = [1] * array.ndim
    shape[0], shape[axis] = len(array), array.shape[axis]
    used = np.arange(array.shape[axis])[None] < lengths[:, None]
    return np.where(used.reshape(shape), array, 0)
