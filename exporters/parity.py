"""Torch against graph: the worst error over batches and lengths, never the mean."""

from __future__ import annotations

import tempfile
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from alm.errors import ExportFailed
from alm.golden import vectors
from alm.ports import Port, taken_as
from alm.session import BackendOptions
from exporters import feeds, golden
from exporters.graph import opened
from wrappers import Wrapper

FP32_TOLERANCE = 1e-3
UNTOUCHED = 1e-4  # of the largest value: two backends differ by less on the same float32 weights

EXACT, WITHIN, BEYOND = "exact", "within bound", "beyond bound"  # verdicts


@dataclass
class Parity:
    """How far a graph is from its float32 module.

    `worst_abs` and `worst_rel` are of the worst element of the worst case. `rms` is the root mean
    square of an output's errors over that of its values, for the worst output of the worst case:
    bounds are set on it, because the worst element of a coarse rounding is a matter of chance and
    grows with the number of elements.
    """

    worst_abs: float = 0.0
    worst_rel: float = 0.0  # the same, as a share of the largest value of that output
    output: str = ""  # where the worst is
    rms: float = 0.0
    cases: int = 0

    def to_json(self) -> dict[str, Any]:
        """For the manifest."""
        return asdict(self)

    @property
    def good(self) -> bool:
        """Within what float32 may cost: 1e-3, of the largest value where that is above 1."""
        return bool(min(self.worst_abs, self.worst_rel) <= FP32_TOLERANCE)

    def verdict(self, bound: float) -> str:
        """EXACT, WITHIN or BEYOND the bound on `rms`.

        A bound of zero is that of float32, where EXACT is 1e-3 as `good` has it. With a lever a
        part is EXACT only if the lever left it alone, or stored it without loss.
        """
        if bound <= 0:
            return EXACT if self.good else BEYOND
        if self.good and self.worst_rel <= UNTOUCHED:
            return EXACT
        return WITHIN if self.rms <= bound else BEYOND

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
        self.rms = max(self.rms, vectors.errors(got, want)[1])


class Truth:
    """The untouched module's outputs for random feeds, computed once and before any backend loads.

    Both at once would hold the weights twice. The outputs wait in unnamed files: those of the
    decoder of a Llama-3.2-3B are 350 MB, most of them its cache.
    """

    def __init__(
        self,
        part: Wrapper,
        dynamic_batch: bool,
        scales: Mapping[str, Tensor] | None = None,
        scratch: Path | None = None,
        heard: Sequence[feeds.Feeds] = (),
    ) -> None:
        """`scratch` is where the files are made, /tmp being memory on many systems.

        `heard` are feeds of real sound, for a graph that was fitted to it: then errors count on
        them alone, and noise shows no more than that all sizes run and stay finite.
        """
        self.scales = {name: scale.numpy() for name, scale in (scales or {}).items()}
        self.inputs, self.outputs = dict(part.inputs), dict(part.outputs)
        self.role, self.spans, self.chunk_rows = part.role, dict(part.spans), part.chunk_rows
        self.sizes = list(feeds.cases(self.inputs, self.spans, dynamic_batch))
        self.golden = len(self.sizes)  # the number of the case that is kept beside the graph
        self.sizes.append(feeds.small(self.spans))
        self._parked: list[list[_Parked]] = []
        self._whole, self._given = dict(self.inputs), dict(self.outputs)  # the module's own
        self._whole_scales, self._kept = dict(self.scales), dict[str, np.ndarray]()
        self.heard = heard
        for seed in range(len(self.sizes) + len(heard)):
            example = self._example(seed)
            with torch.no_grad():
                outputs = part(*(torch.from_numpy(array) for array in example.values()))
            wanted = outputs if isinstance(outputs, tuple) else (outputs,)
            self._parked.append([_Parked(tensor.numpy(), scratch) for tensor in wanted])

    def shrunk(self, part: Wrapper, kept: Mapping[str, Tensor]) -> None:
        """Compare with the graph of a part that has become smaller from now on.

        Args:
            part: as it has become.
            kept: by names of ports, the places on the second axis that the part's still has.
        """
        self.inputs, self.outputs = dict(part.inputs), dict(part.outputs)
        self._kept = {name: index.numpy() for name, index in kept.items()}
        self.scales = {name: scale.numpy() for name, scale in part.state_scales.items()}

    def left(self, name: str, array: np.ndarray) -> np.ndarray:
        """Of what the module is fed or gives, what the graph's port of this name has."""
        return array.take(self._kept[name], 1) if name in self._kept else array

    def cases(self) -> Iterator[tuple[feeds.Feeds, Iterator[np.ndarray]]]:
        """The feeds of each case, and the module's outputs to them in the order of the part's."""
        for seed, parked in enumerate(self._parked):
            named = zip(self._given, parked, strict=True)
            outputs = (self.left(n, array.read()) for n, array in named if n in self.outputs)
            yield self._example(seed), outputs

    def counts(self, number: int) -> bool:
        """Whether errors of this case count."""
        return not self.heard or number >= len(self.sizes)

    def _example(self, seed: int) -> feeds.Feeds:
        if seed >= len(self.sizes):
            return dict(self.heard[seed - len(self.sizes)])
        example = feeds.make(self._whole, self.spans, self.sizes[seed], seed)
        if seed == self.golden:
            example = golden.repeatable(example)
        for name, scale in self._whole_scales.items():  # a cache of integers holds no more
            example[name] = np.clip(example[name] * 2, -1, 1) * (127 * scale)
        return example

    def fed(self, name: str, example: feeds.Feeds, port: Port) -> np.ndarray:
        """A feed in the dtype of the graph's port, rounded where that holds integers."""
        array = self.left(name, example[name])
        if name in self.scales:
            array = np.rint(array / self.scales[name]).clip(-127, 127)
        return array.astype(port.dtype, copy=False)


class _Parked:
    """An array in a file without a name, which is gone with it."""

    def __init__(self, array: np.ndarray, folder: Path | None) -> None:
        self.dtype, self.shape = array.dtype, array.shape
        self.file = tempfile.TemporaryFile(dir=folder)
        weakref.finalize(self, self.file.close)
        array.tofile(self.file)

    def read(self) -> np.ndarray:
        self.file.seek(0)
        return np.fromfile(self.file, self.dtype).reshape(self.shape)


def measure(
    graph: Path,
    truth: Truth,
    inputs: Mapping[str, Port],
    keep: Callable[[golden.Taken], object] | None = None,
) -> Parity:
    """Run the graph on the feeds of the untouched module.

    Args:
        graph: the graph, whose inputs are `inputs` (their dtypes may be narrower than the part's).
        truth: the module in float32.
        keep: takes what becomes golden vectors.

    Raises:
        ExportFailed: the graph does not load, run, or gives other shapes.
    """
    session = opened(graph, truth, BackendOptions("cpu", lean=True))
    worst, noise = Parity(), Parity()
    for number, (example, wanted) in enumerate(truth.cases()):
        into = worst if truth.counts(number) else noise
        fed = {name: truth.fed(name, example, port) for name, port in inputs.items()}
        got, keeps = session.run(fed), keep is not None and number == truth.golden
        kept: dict[str, np.ndarray] = {}
        for (name, port), want in zip(truth.outputs.items(), wanted, strict=True):
            scale = truth.scales.get(taken_as(name), np.float32(1))
            whole = vectors.filled(got[name] * scale, port, example)
            into.take(name, whole, vectors.filled(want, port, example))
            if keeps:
                kept[name] = want / scale
        if keep is not None and keeps:
            keep(golden.take(fed, kept, got, truth.outputs))
        into.cases += 1
    return worst
