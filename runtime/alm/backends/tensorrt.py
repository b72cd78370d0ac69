"""TensorRT and TensorRT-RTX: engines that `alm build` made, with buffers that stay on the GPU.

An engine is code that is executed: its bytes are held against the manifest's hash before TensorRT
sees them, and a hash is as good as the manifest that holds it, so build where you run. A cache of
fixed capacity is one buffer that goes in and comes out, as TensorRT demands. The single-token step
can be recorded once as a CUDA graph and replayed: ALM_CUDA_GRAPH=1.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from alm.artifacts.engine_files import Engine
from alm.artifacts.part import Part
from alm.errors import BadArtifacts, MissingPackage
from alm.host import containment
from alm.ports import Port, is_carried, taken_as
from alm.session import BackendOptions, Feed, Kept, Session
from alm.tensorrt import api, build
from alm.tensorrt.cuda import Buffer, Cuda, Device
from alm.tensorrt.profiles import ROOM, fits

# alm's name of a provider -> the package that drives it.
PROVIDERS = {name: flavour.module for name, flavour in api.FLAVOURS.items()}
ON_CPU = ()

DTYPES = {
    "FLOAT": "float32",
    "HALF": "float16",
    "INT64": "int64",
    "INT32": "int32",
    "INT8": "int8",
    "UINT8": "uint8",
    "BOOL": "bool",
}


def available() -> list[str]:
    """Providers that can run here; none without a GPU, and nothing large is imported for it."""
    if api.gpu() is None:
        return []
    return [name for name, module in PROVIDERS.items() if importlib.util.find_spec(module)]


def open_session(part: Part, folder: Path, options: BackendOptions) -> Session:
    """Open the engine that was built of a part; its graph is not read.

    Raises:
        MissingPackage: TensorRT, cuda-bindings or a GPU is missing.
        BadArtifacts: there is no engine for this graph and this machine, or its file was changed;
            the message says what to type.
    """
    name = options.provider
    if api.gpu() is None:
        raise MissingPackage(f"{name} needs an NVIDIA GPU and its driver; use --provider cpu")
    engine, plan = read(folder, part, name)
    graphs = os.environ.get("ALM_CUDA_GRAPH", "0") != "0"
    loaded = api.deserialize(name, plan)
    return TensorrtSession(loaded, engine, Cuda(), graphs)


def read(folder: Path, part: Part, backend: str) -> tuple[Engine, bytes]:
    """The part's engine and its bytes, which are what the manifest says and fit this machine.

    Raises:
        BadArtifacts: none was built, of another TensorRT, GPU or graph, or the file was changed.
    """
    remedy = f"build it here with: alm build {folder} --backend {backend}"
    engine = part.engine(backend)
    if engine is None:
        raise BadArtifacts(f"{folder} holds no {backend} engine of part {part.name}; {remedy}")
    wrong = build.check(engine, part, api.maker(backend))
    if wrong:
        raise BadArtifacts(f"{wrong}; {remedy}")
    path = containment.contained(folder, engine.file.name)
    # Read once, hashed and used: what is executed is what was verified.
    plan = path.read_bytes()
    digest = hashlib.sha256(plan).hexdigest()
    if digest != engine.file.sha256.lower():
        raise BadArtifacts(
            f"{engine.file.name!r} in {folder} has sha256 {digest} and the manifest says "
            f"{engine.file.sha256}; it was not loaded; {remedy} --force"
        )
    return engine, plan


class TensorrtSession(Session):
    """One engine; its last profile is tried first, which for a decoder is the single token."""

    def __init__(
        self,
        loaded: Any,
        entry: Engine,
        device: Device,
        graphs: bool = False,
    ) -> None:
        """`loaded` as TensorRT gave it, `entry` what the manifest holds of it."""
        engine = self._engine = loaded
        self._profiles, self._device = entry.profiles, device
        self._graphs = graphs
        self._contexts: dict[int, Any] = {}
        self._buffers: dict[tuple[int, str], Buffer] = {}  # of inputs and outputs that nobody keeps
        self._recorded: tuple[Any, Callable[[], None] | None] = (None, None)
        names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
        sides: dict[bool, dict[str, Port]] = {True: {}, False: {}}
        for name in names:
            goes_in = "INPUT" in str(engine.get_tensor_mode(name)).upper()
            sides[goes_in][name] = _port(engine, name)
        self.inputs, self.outputs = sides[True], sides[False]
        # The room of a cache is fixed here; a cache that is shorter is made as long.
        self._rooms = {}
        if ROOM in entry.fixed:
            for name in filter(is_carried, [*self.inputs]):
                self._rooms[name] = entry.fixed[ROOM]
                self.inputs[name] = _roomy(self.inputs[name], entry.fixed[ROOM])
        most = [r[2][0] for p in entry.profiles for r in p.values() if r[2]]
        # An engine for one row runs several one after another: it has as many as its caller likes.
        self.one_row = bool(most) and max(most) == 1

    def run(
        self, feeds: Mapping[str, Feed], keep: Mapping[str, Kept | None] | None = None
    ) -> dict[str, Any]:
        """See `Session.run`."""
        feeds, keep = self._widened(feeds), keep or {}
        shapes = {name: tuple(_shape(feed)) for name, feed in feeds.items()}
        number = self._choose(shapes)
        context = self._context(number)
        bound = {name: self._bring(number, name, feeds[name]) for name in self.inputs}
        for name, shape in shapes.items():
            if not context.set_input_shape(name, shape):
                raise BadArtifacts(f"TensorRT takes no {name} of {list(shape)}")
        for name in self.outputs:
            bound[name] = self._place(number, name, context, bound, keep)
        for name, buffer in bound.items():
            context.set_tensor_address(name, buffer.address)
        self._execute(number, context, {name: (b.address, b.shape) for name, b in bound.items()})
        return {
            name: bound[name] if name in keep else self.fetch(bound[name]) for name in self.outputs
        }

    def hold(self, array: np.ndarray) -> Buffer:
        """See `Session.hold`: a copy on the GPU."""
        array = np.ascontiguousarray(array)
        buffer = Buffer(self._device, array.shape, array.dtype)
        if array.nbytes:
            self._device.upload(buffer.address, array)
        return buffer

    def fetch(self, kept: Kept) -> np.ndarray:
        """See `Session.fetch`: a copy."""
        assert isinstance(kept, Buffer)
        array = np.empty(kept.shape, kept.dtype)
        if array.nbytes:
            self._device.download(array, kept.address)
        return array

    def _widened(self, feeds: Mapping[str, Feed]) -> dict[str, Feed]:
        """Caches with as much room as the engine was built for: the first run of an answer."""
        wide = dict(feeds)
        for name, room in self._rooms.items():
            feed, axis = feeds[name], self.inputs[name].axes.index(ROOM)
            lacking = room - _shape(feed)[axis]
            if lacking < 0:
                raise BadArtifacts(
                    f"{_shape(feed)[axis]} positions are wanted and the engine was built for "
                    f"{room}; build for more with: alm build DIR --context N"
                )
            if lacking:
                array = self.fetch(feed) if isinstance(feed, Buffer) else np.asarray(feed)
                spare = [(0, lacking if i == axis else 0) for i in range(array.ndim)]
                wide[name] = self.hold(np.pad(array, spare))
        return wide

    def _choose(self, shapes: Mapping[str, tuple[int, ...]]) -> int:
        """The number of a profile that these shapes are in."""
        wrong = ""
        for number in reversed(range(len(self._profiles))):
            wrong = fits(shapes, self._profiles[number])
            if not wrong:
                return number
        if wrong:
            raise BadArtifacts(
                f"{wrong}; build for more with: alm build DIR --batch N --context N --prompt N"
            )
        return 0

    def _context(self, number: int) -> Any:
        if number not in self._contexts:
            context = self._engine.create_execution_context()
            if context is None:
                raise BadArtifacts("TensorRT has no memory left for the work of this engine")
            if self._profiles:
                context.set_optimization_profile_async(number, self._device.stream)
            self._contexts[number] = context
        return self._contexts[number]

    def _bring(self, number: int, name: str, feed: Feed) -> Buffer:
        """A feed on the GPU; arrays go into buffers that stay, so that addresses do."""
        if isinstance(feed, Buffer):
            return feed
        array = np.ascontiguousarray(feed, self.inputs[name].dtype)
        buffer = self._buffer(number, name, array.shape, array.dtype)
        if array.nbytes:
            self._device.upload(buffer.address, array)
        return buffer

    def _place(
        self,
        number: int,
        name: str,
        context: Any,
        bound: Mapping[str, Buffer],
        keep: Mapping[str, Kept | None],
    ) -> Buffer:
        """Where an output goes: a cache of fixed capacity where it came from."""
        shape, dtype = tuple(context.get_tensor_shape(name)), np.dtype(self.outputs[name].dtype)
        place = keep.get(name)
        if isinstance(place, Buffer) and place.shape == shape:
            return place
        twin = bound.get(taken_as(name))
        if twin is not None and twin.shape == shape:
            return twin
        if name in keep:
            return Buffer(self._device, shape, dtype)
        return self._buffer(number, name, shape, dtype)

    def _buffer(
        self, number: int, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]
    ) -> Buffer:
        old = self._buffers.get((number, name))
        if old is None or old.shape != shape or old.dtype != dtype:
            self._buffers[number, name] = old = Buffer(self._device, shape, dtype)
        return old

    def _execute(self, number: int, context: Any, bound: Mapping[str, Any]) -> None:
        def work() -> None:
            if not context.execute_async_v3(self._device.stream):
                raise BadArtifacts("TensorRT failed to run the engine")

        step = self._graphs and number == 1  # the single token of a decoder
        key = (number, tuple(sorted(bound.items())))
        if step and self._recorded[0] == key:
            # The first run of these addresses was a plain one, which set the engine up.
            replay = self._recorded[1] or self._device.record(work)
            self._recorded = (key, replay)
            replay()
            return
        if step:
            self._recorded = (key, None)
        work()


def _port(engine: Any, name: str) -> Port:
    axes = tuple(int(n) if n >= 0 else "" for n in engine.get_tensor_shape(name))
    kind = str(engine.get_tensor_dtype(name)).rpartition(".")[2].upper()
    return Port(DTYPES.get(kind, kind.lower()), axes)


def _roomy(port: Port, room: int) -> Port:
    """The port, its axis of this size called by its name."""
    axes = [ROOM if i == len(port.axes) - 2 and a == room else a for i, a in enumerate(port.axes)]
    return Port(port.dtype, tuple(axes), port.counts, port.below)


def _shape(feed: Feed) -> tuple[int, ...]:
    return feed.shape if isinstance(feed, (Buffer, np.ndarray)) else np.shape(feed)  # pyright: ignore
