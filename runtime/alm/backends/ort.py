"""ONNX Runtime: graphs as they were exported, the KV cache kept where the graph runs.

Its own TensorRT providers build their engines when a graph is opened, which takes minutes the first
time; `--provider tensorrt` is our own, whose engines `alm build` makes.
"""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from alm.artifacts.engine_files import Profile
from alm.artifacts.part import Part
from alm.errors import BadArtifacts, MissingPackage
from alm.host import archive
from alm.onnxfile.relocate import relocated
from alm.parsing import printable
from alm.ports import Port
from alm.session import BackendOptions, Feed, Kept, Session
from alm.tensorrt import api, ort_provider
from alm.tensorrt.profiles import fits

# alm's name of a provider -> ONNX Runtime's, the one preferred by `auto` first.
# Those that build engines come last: nobody waits for minutes who did not ask for it.
PROVIDERS = {
    "cuda": "CUDAExecutionProvider",
    "cpu": "CPUExecutionProvider",
    "ort-tensorrt": "TensorrtExecutionProvider",
    "ort-tensorrt-rtx": "NvTensorRTRTXExecutionProvider",
}
ON_CPU = ("cpu",)
# Where the files of weights are that a graph of bytes names.
EXTERNAL = "session.model_external_initializers_file_folder_path"

DTYPES = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(bfloat16)": "bfloat16",
    "tensor(double)": "float64",
    "tensor(int64)": "int64",
    "tensor(int32)": "int32",
    "tensor(int8)": "int8",
    "tensor(uint8)": "uint8",
    "tensor(bool)": "bool",
}


def _runtime() -> Any:
    # Official builds of a sibling package report usage over the network; this opts out of all.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingPackage("no backend is installed; try: pip install 'alm-edge[ort]'") from error
    # Only what ends the process: every error is raised too, and stderr is for our sentences.
    onnxruntime.set_default_logger_severity(4)
    return onnxruntime


def available() -> list[str]:
    """Providers that can run here, the preferred first: without a GPU it is the CPU alone."""
    return usable(_installed(), api.gpu())


def usable(installed: Sequence[str], gpu: api.Gpu | None) -> list[str]:
    """Those of the installed providers that have what they run on."""
    return [name for name in installed if name in ON_CPU or gpu is not None]


def _installed() -> list[str]:
    """Providers of this installation: a build for GPUs names them on every machine."""
    there = _runtime().get_available_providers()
    return [name for name, theirs in PROVIDERS.items() if theirs in there]


@lru_cache(1)
def _load_libraries() -> None:
    """Load CUDA and cuDNN where pip put them; a system's own need no help.

    `pip install 'onnxruntime-gpu[cuda,cudnn]'` brings them to a folder that no loader searches.
    """
    preload = getattr(_runtime(), "preload_dlls", None)  # since 1.21
    if preload is not None:
        with contextlib.redirect_stdout(io.StringIO()):  # it prints what it does not find
            preload()


def open_session(part: Part, folder: Path, options: BackendOptions) -> Session:
    """Open the graph of a part.

    Raises:
        MissingPackage: onnxruntime is not installed, or the provider is not in this installation.
        BadArtifacts: ONNX Runtime cannot load the graph, or the provider does not take it.
    """
    runtime = _runtime()
    there = {name: PROVIDERS[name] for name in _installed()}
    if options.provider not in there:
        raise MissingPackage(
            f"provider {options.provider!r} is not installed; there is: {', '.join(there)}"
        )
    if options.provider != "cpu":
        _load_libraries()
    shown, place = folder / part.files[0].name, None
    model: Path | bytes = shown
    if archive.is_one(folder):
        model, place = _inside(part, folder)
    provider_options, shapes = _provider_options(part, options.provider)
    settings = _settings(runtime, options)
    if place is not None:
        settings.add_session_config_entry(EXTERNAL, place)
    late = options.halves and options.provider == "cpu"
    left_out = _widen_late(runtime, settings) if late else []
    providers = ort_provider.chain(options.provider, there, provider_options)
    try:
        # With its fallback ONNX Runtime prints to stdout and goes on with another provider.
        session = runtime.InferenceSession(
            model, settings, providers, disabled_optimizers=left_out, enable_fallback=0
        )
    except Exception as error:  # onnxruntime's own exceptions share no base of theirs
        if "is under development" in str(error):  # its message about an opset newer than itself
            raise BadArtifacts(
                f"{shown} is newer than ONNX Runtime {runtime.__version__} here; upgrade that "
                "(from 1.24 on it will do), or export with: --target portable"
            ) from error
        raise BadArtifacts(f"ONNX Runtime cannot load {shown}: {_first_line(error)}") from error
    if session.get_providers()[0] != PROVIDERS[options.provider]:
        # ONNX Runtime falls back to the CPU with a warning; a measurement would then be a lie.
        raise MissingPackage(
            f"provider {options.provider!r} is installed but could not start on this machine; "
            "use --provider cpu"
        )
    if options.provider in ort_provider.BUILDERS:
        ort_provider.keep(provider_options)
    return OrtSession(session, options.provider, shapes)


def _inside(part: Part, file: Path) -> tuple[bytes, str]:
    """A graph of an .alm file, whose weights are in that file, and the folder where that lies."""
    place, its = archive.called(file)
    inside = {each.name: archive.find(file, each.name).member for each in part.files}
    home = PurePosixPath(part.files[0].name).parent
    places = {
        str(PurePosixPath(name).relative_to(home)): (its, member.start)
        for name, member in inside.items()
    }
    data = archive.content(file, part.files[0].name)
    return relocated(file, part.files[0].name, data, places), place


def _provider_options(part: Part, provider: str) -> tuple[dict[str, str], Profile]:
    """A provider's options for a part, and the shapes that it may be given."""
    if provider not in ort_provider.BUILDERS:
        return (ort_provider.CUDA if provider == "cuda" else {}), {}
    shapes = ort_provider.profile(part, provider)
    return ort_provider.tensorrt(part, provider, shapes), shapes


def _settings(runtime: Any, options: BackendOptions) -> Any:
    """SessionOptions. Figures: ONNX Runtime 1.31, an EPYC, CPU time of one thread, float32.

    Weights are left as they are prepacked, in memory of the process' own as large as the file (400
    MiB of MatMul in external data: 402 MiB; the file is unmapped again). Without prepacking
    (session.disable_prepacking) they stay mapped, which the system can take back, and load in 0.03
    s instead of 0.65; but 8 rows take 2.5 times as long and 64 rows 1.3 times. int4 products of 250
    MiB hold 304 of their own and 51 of the file, and without prepacking take 60 times as long.
    session.use_device_allocator_for_initializers and the level of optimization change neither.
    """
    settings = runtime.SessionOptions()
    # A pool of threads for all sessions together (set_global_thread_pool_sizes) would save 5 MiB
    # where six sessions have 16 threads each, 0.3 MiB with 2; it holds for the whole process, which
    # may not be ours.
    if options.threads:
        settings.intra_op_num_threads = options.threads
    settings.log_severity_level = 4
    # Threads of a part that is done must not spin beside those of the next: 5 times the latency.
    # Where others keep a core busy, spinning within a run harms too (with allow_spinning of 0, 400
    # MiB of products by one row took 27 instead of 57 ms and 24 instead of 40 ms of CPU). On a
    # machine of its own, steps of small operators would wait for threads to wake: it is left on.
    settings.add_session_config_entry("session.force_spinning_stop", "1")
    # Patterns of memory, planned in the first run, make the second take more than the first and
    # keep it: Whisper-large-v3-turbo in int8 holds 833 MiB without them, 922 with, 630 of them
    # weights. Without an arena it is 1300: the heap keeps what it cannot join.
    settings.enable_mem_pattern = not options.lean
    if options.profile:
        settings.enable_profiling, settings.profile_file_prefix = True, options.profile
    return settings


def _widen_late(runtime: Any, settings: Any) -> list[str]:
    """Let weights of 16 bits stay mapped, and widen each right before its product.

    Returns the optimizers to switch off.

    A CPU multiplies in float32. Left alone, ONNX Runtime widens all weights while it loads, which
    for Whisper-large-v3-turbo takes 4 s and 2.95 GB instead of 0.1 s and 1.47 GB; a run takes the
    same time either way. It needs all three: no folding of constants (its level ALL folds again),
    and an order of nodes by priority, because by default all casts, having no inputs to wait for,
    come first.
    """
    settings.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    settings.execution_order = runtime.ExecutionOrder.PRIORITY_BASED
    return ["ConstantFolding"]


@dataclass
class Handle(Kept):
    """A tensor that stays with the backend; `array` shares its memory on the CPU."""

    value: Any
    array: np.ndarray | None = None


class OrtSession(Session):
    """One graph in ONNX Runtime."""

    def __init__(self, session: Any, provider: str, shapes: Profile | None = None) -> None:
        """`shapes`: those that a provider's engine is built for; none are any."""
        self._session, self._shapes = session, shapes or {}
        self._device: str = "cpu" if provider == "cpu" else "cuda"
        self.inputs = {i.name: _port(i) for i in session.get_inputs()}
        self.outputs = {o.name: _port(o) for o in session.get_outputs()}
        self.one_row = provider in ort_provider.BUILDERS  # as `ort_provider.profile` has it
        self.in_place = self._device == "cpu"  # there an OrtValue of a numpy array is that array

    def run(
        self, feeds: Mapping[str, Feed], keep: Mapping[str, Kept | None] | None = None
    ) -> dict[str, Any]:
        """See `Session.run`."""
        keep = keep or {}
        binding = self._session.io_binding()
        handles = {
            name: feed if isinstance(feed, Handle) else self.hold(np.asarray(feed))
            for name, feed in feeds.items()
        }
        self._refuse_outside(handles)
        for name, handle in handles.items():
            binding.bind_ortvalue_input(name, handle.value)  # pyright: ignore
        for name in self.outputs:
            place = keep.get(name)
            if isinstance(place, Handle):
                binding.bind_ortvalue_output(name, place.value)
            else:
                binding.bind_output(name, self._device if name in keep else "cpu")
        try:
            self._session.run_with_iobinding(binding)
        except Exception as error:
            raise BadArtifacts(f"ONNX Runtime failed: {_first_line(error)}") from error
        values = dict(zip(self.outputs, binding.get_outputs(), strict=True))
        return {
            name: (keep[name] or Handle(value)) if name in keep else value.numpy()
            for name, value in values.items()
        }

    def profiled(self) -> str:
        """The path of what every node took, of a session opened with `profile`, which ends."""
        return str(self._session.end_profiling())

    def _refuse_outside(self, handles: Mapping[str, Handle]) -> None:
        """Of other shapes ONNX Runtime would build another engine, for minutes and in silence."""
        if not self._shapes:
            return
        wrong = fits({n: h.value.shape() for n, h in handles.items()}, self._shapes)  # pyright: ignore
        if wrong:
            raise BadArtifacts(
                f"{wrong}; for more use --provider tensorrt, with: alm build DIR --context N "
                "--prompt N"
            )

    def hold(self, array: np.ndarray) -> Handle:
        """See `Session.hold`. On the CPU the backend works in the array's own memory."""
        from onnxruntime import OrtValue

        array = np.ascontiguousarray(array)
        return Handle(OrtValue.ortvalue_from_numpy(array, self._device, 0), array)

    def fetch(self, kept: Kept) -> np.ndarray:
        """See `Session.fetch`."""
        assert isinstance(kept, Handle)
        on_cpu = self._device == "cpu" and kept.array is not None
        return kept.array if on_cpu else kept.value.numpy()  # pyright: ignore


def _port(value: Any) -> Port:
    axes = tuple(axis if isinstance(axis, (int, str)) else "" for axis in value.shape)
    return Port(DTYPES.get(str(value.type), str(value.type)), axes)


def _first_line(error: Exception) -> str:
    text = str(error).strip().split("\n")[0]
    return printable(text.removeprefix("[ONNXRuntimeError] : "), 500)
