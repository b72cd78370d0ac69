"""The parts before the decoder, run by an ensemble of the same Triton."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from alm.artifacts.manifest import Manifest
from alm.errors import BadArtifacts
from alm.timings import Stages
from alm.triton import ensemble
from alm.triton.onnx_models import batched


class Front:
    """What `alm.load` takes as `front`; it may be asked by several threads at once.

    The requests of all of them meet in the server, which batches those parts whose tensors are of
    one shape.
    """

    def __init__(self, utils: Any, model: str, manifest: Manifest, rows: int) -> None:
        """`utils` is Triton's module triton_python_backend_utils; `rows` go in one request."""
        self._utils, self.model = utils, model
        self._takes = ensemble.takes(manifest)
        self._gives = ensemble.gives(manifest)
        self._rows = max(rows, 1) if batched(ensemble.front(manifest)[0]) else 1

    def forward(
        self,
        tensors: dict[str, np.ndarray],
        stages: Stages | None = None,
        worn: Mapping[str, Mapping[str, np.ndarray]] | None = None,
    ) -> dict[str, np.ndarray]:
        """All that the decoder wants of these rows of samples, `pcm` and `pcm_lengths`.

        `worn` is for parts that are here: those of an ensemble take no adapter.

        Raises:
            BadArtifacts: Triton's own sentence, where it failed.
        """
        start = time.perf_counter()
        there = len(tensors["pcm"])
        answers = [
            self._ask({name: tensors[name][at : at + self._rows] for name in self._takes})
            for at in range(0, there, self._rows)
        ]
        if stages:
            stages.add(self.model, start)
        return {n: np.concatenate([answer[n] for answer in answers]) for n in self._gives}

    def _ask(self, rows: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        utils, inputs = self._utils, []
        for name, array in rows.items():
            # A tensor of nothing but rows has a column for Triton, unless there is one row alone.
            shaped = array[:, None] if array.ndim == 1 and self._takes[name].axes[0] != 1 else array
            inputs.append(utils.Tensor(name, np.ascontiguousarray(shaped)))
        response = utils.InferenceRequest(
            model_name=self.model,
            requested_output_names=list(self._gives),
            inputs=inputs,
            # Otherwise what a GPU made stays there, and numpy cannot reach it.
            preferred_memory=utils.PreferredMemory(utils.TRITONSERVER_MEMORY_CPU),
        ).exec()
        if response.has_error():
            raise BadArtifacts(f"Triton's model {self.model}: {response.error().message()}")
        given: dict[str, np.ndarray] = {}
        for name, port in self._gives.items():
            array = np.array(utils.get_output_tensor_by_name(response, name).as_numpy())  # a copy
            given[name] = array.reshape(-1) if len(port.axes) == 1 else array
        return given
