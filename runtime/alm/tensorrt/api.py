"""TensorRT 10.3 to 11 and TensorRT-RTX behind one face: where their versions differ, it is here.

Networks are strongly typed: precision is what the graph says. TensorRT needs the GPU it builds
for; TensorRT-RTX builds without one, and finishes an engine on the GPU that loads it.
"""

from __future__ import annotations

import ctypes
import importlib
import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from alm.artifacts.engine_files import Maker, Profile
from alm.errors import BadArtifacts, MissingPackage, UnknownName

Say = Callable[[str], None]


class Flavour(NamedTuple):
    """A program that builds and runs engines."""

    module: str  # to import
    tool: str  # its command line
    needs_gpu: bool  # to build
    fixed_bytes: int  # of memory that a build takes besides the weights
    get: str  # how to install it


FLAVOURS = {
    "tensorrt": Flavour(
        "tensorrt",
        "trtexec",
        True,
        3 * 2**29,
        "it is part of JetPack (see docs/jetson.md), elsewhere: pip install tensorrt",
    ),
    "tensorrt-rtx": Flavour(
        "tensorrt_rtx", "tensorrt_rtx", False, 2**29, "try: pip install tensorrt-rtx"
    ),
}


class Gpu(NamedTuple):
    """The first GPU of this machine."""

    name: str
    compute_capability: str


@dataclass(frozen=True)
class Limits:
    """What a build may take."""

    workspace: int = 0  # bytes of the GPU's memory for the work of kernels; 0: TensorRT's choice


def flavour(name: str) -> Flavour:
    """The program of this name; UnknownName lists the right ones."""
    if name not in FLAVOURS:
        raise UnknownName(f"unknown backend {name!r}; there is: {', '.join(FLAVOURS)}")
    return FLAVOURS[name]


@lru_cache(4)
def load(name: str) -> ModuleType:
    """Import TensorRT or TensorRT-RTX.

    Raises:
        MissingPackage: it is not installed, or a library of the system that it needs is not.
    """
    wanted = flavour(name)
    try:
        return importlib.import_module(wanted.module)
    except (ImportError, OSError) as error:
        raise MissingPackage(f"{name} cannot be imported ({error}); {wanted.get}") from error


@lru_cache(1)
def gpu() -> Gpu | None:
    """The first GPU as the driver reports it, without any package; None where there is none."""
    for library in ("libcuda.so.1", "nvcuda.dll"):
        try:
            cuda = ctypes.CDLL(library)
            break
        except OSError:
            continue
    else:
        return None
    device, name = ctypes.c_int(), ctypes.create_string_buffer(256)
    major, minor = ctypes.c_int(), ctypes.c_int()
    calls = (
        lambda: cuda.cuInit(0),
        lambda: cuda.cuDeviceGet(ctypes.byref(device), 0),
        lambda: cuda.cuDeviceGetName(name, len(name), device),
        # Numbers 75 and 76 of CUdevice_attribute are the two of the compute capability.
        lambda: cuda.cuDeviceGetAttribute(ctypes.byref(major), 75, device),
        lambda: cuda.cuDeviceGetAttribute(ctypes.byref(minor), 76, device),
    )
    if any(call() for call in calls):
        return None
    return Gpu(name.value.decode("utf-8", "replace"), f"{major.value}.{minor.value}")


def maker(name: str) -> Maker:
    """What an engine that is built here and now belongs to.

    Raises:
        MissingPackage: it is not installed, or there is no GPU and it needs one.
    """
    api, here = load(name), gpu()
    version, system = str(api.__version__), f"{platform.system()} {platform.machine()}"
    if not flavour(name).needs_gpu:
        return Maker(name, version, system, "", "")
    if here is None:
        raise MissingPackage(
            f"{name} {version} builds on the GPU that will run the engine, and there is none here; "
            "run this command on the device (--dry-run works anywhere)"
        )
    return Maker(name, version, system, here.name, here.compute_capability)


class Built(NamedTuple):
    """An engine in memory, and what its kernels took when they were tried."""

    plan: memoryview
    timings: bytes


def build(
    name: str,
    content: bytes,
    graph: Path,
    profiles: Sequence[Profile],
    limits: Limits,
    timings: bytes,
    say: Say,
) -> Built:
    """Build one engine.

    Args:
        name: tensorrt or tensorrt-rtx.
        content: an ONNX model, as `graph.fitted` gives it.
        graph: the file that it was made of: external data lies beside it.
        profiles: none where every axis of every input is fixed.
        timings: what an earlier build of this TensorRT on this GPU gave; b"" for none.
        say: called with the progress.

    Raises:
        BadArtifacts: the graph cannot be read or built, in TensorRT's own words.
    """
    api = load(name)
    log = _log(api)
    builder = api.Builder(log)
    network = builder.create_network(_creation_flags(api))
    parser = api.OnnxParser(network, log)
    say("reading the graph")
    if not parser.parse(content, str(graph)):
        refusals = "; ".join(_refusal(parser.get_error(i)) for i in range(parser.num_errors))
        raise BadArtifacts(f"{name} {api.__version__} cannot read {graph}: {refusals or log.last}")
    config = _config(api, builder, profiles, limits)
    kept = _use_timings(config, timings) if flavour(name).needs_gpu else None
    watch = _watch(api, say)
    if watch is not None:
        config.progress_monitor = watch
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise BadArtifacts(f"{name} {api.__version__} cannot build {graph}: {log.last}")
    return Built(memoryview(plan).cast("B"), bytes(kept.serialize()) if kept is not None else b"")


def _refusal(error: Any) -> str:
    """The operator, the node and the reason."""
    operator = str(getattr(error, "node_operator", lambda: "")() or "a node")  # since 10.0
    return f"{operator} {error.node_name()!r:.80}: {_words(error.desc())}"


def _creation_flags(api: Any) -> int:
    """Strongly typed: to be asked for in 10, always so in 11 and RTX, whose flag may be gone."""
    flags = getattr(api, "NetworkDefinitionCreationFlag", None)
    strong = getattr(flags, "STRONGLY_TYPED", None)
    return 0 if strong is None else 1 << int(strong)


def _config(api: Any, builder: Any, profiles: Sequence[Profile], limits: Limits) -> Any:
    config = builder.create_builder_config()
    if limits.workspace:
        config.set_memory_pool_limit(api.MemoryPoolType.WORKSPACE, limits.workspace)
    for ranges in profiles:
        profile = builder.create_optimization_profile()
        for name, (least, usual, most) in ranges.items():
            profile.set_shape(name, least, usual, most)
        config.add_optimization_profile(profile)
    return config


def _use_timings(config: Any, timings: bytes) -> Any:
    """The cache of kernels' timings, begun anew where the old one is of another TensorRT or GPU."""
    for blob in (timings, b""):
        cache = config.create_timing_cache(blob)
        if cache is not None and config.set_timing_cache(cache, False):
            return cache
    return None


def _log(api: Any) -> Any:
    """A logger that keeps the last error; nothing is printed."""

    class Log(api.ILogger):
        last = "it did not say why"

        def __init__(self) -> None:
            api.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            if severity in (api.ILogger.ERROR, api.ILogger.INTERNAL_ERROR):
                self.last = _words(message)

    return Log()


def _watch(api: Any, say: Say) -> Any:
    """TensorRT's progress monitor, which calls `say`; None where there is none (RTX)."""
    base = getattr(api, "IProgressMonitor", None)
    if base is None:
        return None

    class Watch(base):
        def __init__(self) -> None:
            base.__init__(self)
            self.steps: dict[str, int] = {}

        def phase_start(self, name: str, parent: str | None, steps: int) -> None:
            self.steps[name] = steps

        def step_complete(self, name: str, step: int) -> bool:
            steps = self.steps.get(name, 0)
            if steps > 1:
                say(f"{name.lower()}: {step + 1} of {steps}")
            return True  # go on

        def phase_finish(self, name: str) -> None:
            self.steps.pop(name, None)

    return Watch()


def deserialize(name: str, plan: bytes) -> Any:
    """An engine that may be executed: its bytes must have been verified before.

    Raises:
        BadArtifacts: TensorRT does not take it.
    """
    runtime, log = _runtime(name)
    engine = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        version = load(name).__version__
        raise BadArtifacts(f"{name} {version} does not take the engine: {log.last}")
    return engine


@lru_cache(4)
def _runtime(name: str) -> tuple[Any, Any]:
    """One for all engines, which must not outlive it."""
    api = load(name)
    log = _log(api)
    return api.Runtime(log), log


def _words(message: str) -> str:
    return " ".join(str(message).split())
