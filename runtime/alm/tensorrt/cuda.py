"""Memory, a stream and recorded work of an NVIDIA GPU, through cuda-bindings and nothing else."""

from __future__ import annotations

import importlib
import weakref
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from alm.errors import BadArtifacts, MissingPackage
from alm.session import Kept

LEAST_BYTES = 256  # of a buffer: an empty tensor has an address too


class Device(Protocol):
    """Memory and a stream of a GPU."""

    stream: int

    def allocate(self, size: int) -> int:
        """The address of so many bytes."""
        ...

    def free(self, address: int) -> None:
        """Give them back."""
        ...

    def upload(self, address: int, array: np.ndarray) -> None:
        """Copy an array there; it may be changed afterwards."""
        ...

    def download(self, array: np.ndarray, address: int) -> None:
        """Copy into an array, when all that was asked for before is done."""
        ...

    def record(self, work: Callable[[], None]) -> Callable[[], None]:
        """What `work` puts on the stream, recorded; calling it replays that."""
        ...


class Cuda:
    """The first GPU through cuda-bindings."""

    def __init__(self) -> None:
        self._api = _bindings()
        self.stream = int(self._do("cudaStreamCreate"))

    def _do(self, name: str, *arguments: Any) -> Any:
        error, *values = getattr(self._api, name)(*arguments)
        if int(error):
            raise BadArtifacts(f"CUDA failed: {name} says {error!s}")
        return values[0] if values else None

    def allocate(self, size: int) -> int:
        """See `Device`."""
        return int(self._do("cudaMalloc", size))

    def free(self, address: int) -> None:
        """See `Device`."""
        self._api.cudaFree(address)  # at the end of the process the driver may be gone: no error

    def upload(self, address: int, array: np.ndarray) -> None:
        """See `Device`."""
        # Pageable memory is copied aside before the call returns (CUDA's "API synchronization
        # behavior"), so nothing waits here.
        kind = self._api.cudaMemcpyKind.cudaMemcpyHostToDevice
        arguments = (address, array.ctypes.data, array.nbytes, kind, self.stream)
        self._do("cudaMemcpyAsync", *arguments)

    def download(self, array: np.ndarray, address: int) -> None:
        """See `Device`."""
        kind = self._api.cudaMemcpyKind.cudaMemcpyDeviceToHost
        arguments = (array.ctypes.data, address, array.nbytes, kind, self.stream)
        self._do("cudaMemcpyAsync", *arguments)
        self._do("cudaStreamSynchronize", self.stream)

    def record(self, work: Callable[[], None]) -> Callable[[], None]:
        """See `Device`."""
        mode = self._api.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        self._do("cudaStreamBeginCapture", self.stream, mode)
        work()
        graph = self._do("cudaStreamEndCapture", self.stream)
        ready = self._do("cudaGraphInstantiate", graph, 0)
        return lambda: self._do("cudaGraphLaunch", ready, self.stream)


def _bindings() -> Any:
    for module in ("cuda.bindings.runtime", "cuda.cudart"):  # the second: before 12.8
        try:
            return importlib.import_module(module)
        except ImportError:
            continue
    raise MissingPackage("cuda-bindings is not installed; try: pip install cuda-bindings")


class Buffer(Kept):
    """A tensor in the GPU's memory, freed with its handle."""

    def __init__(self, device: Device, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self.shape, self.dtype = shape, dtype
        self.address = device.allocate(max(self.bytes, LEAST_BYTES))
        weakref.finalize(self, device.free, self.address)

    @property
    def bytes(self) -> int:
        """Of the tensor."""
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize
