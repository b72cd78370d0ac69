"""Triton as far as our repository meets it: its module for Python models, and its server.

The module behaves as the one of triton-inference-server/python_backend (`src/pb_stub.cc`,
`response_sender.cc`, `pb_tensor.cc`); the server checks configurations as its core and its
onnxruntime backend do (`ensemble_utils.cc`, `onnxruntime_utils.cc`), and runs them.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import util
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime
from google.protobuf import json_format, text_format

FINAL = 1  # TRITONSERVER_RESPONSE_COMPLETE_FINAL


def _messages() -> ModuleType:
    """Triton's own protobuf messages; the package around them would want grpc."""
    package = util.find_spec("tritonclient")
    assert package and package.submodule_search_locations
    path = Path(next(iter(package.submodule_search_locations)), "grpc", "model_config_pb2.py")
    spec = util.spec_from_file_location("triton_model_config", path)
    assert spec and spec.loader
    module = util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


MESSAGES = _messages()


def parsed(path: Path) -> Any:
    """A configuration as Triton reads it: unknown fields and broken text are errors."""
    return text_format.Parse(path.read_text("utf-8"), MESSAGES.ModelConfig())


class TritonModelException(Exception):
    """What a model raises of itself."""


class TritonError:
    UNKNOWN, INTERNAL, NOT_FOUND, INVALID_ARG = range(4)
    UNAVAILABLE, UNSUPPORTED, ALREADY_EXISTS, CANCELLED = range(4, 8)

    def __init__(self, message: str, code: int = INTERNAL) -> None:
        assert isinstance(message, str)
        self._message, self._code = message, code

    def message(self) -> str:
        return self._message

    def code(self) -> int:
        return self._code


class Tensor:
    def __init__(self, name: str, array: np.ndarray, on_gpu: bool = False) -> None:
        if array.dtype.type in (np.str_, np.void):
            raise TritonModelException("Tensor dtype is not supported, use np.object_ instead")
        self._name, self._array, self._on_gpu = name, array, on_gpu

    def name(self) -> str:
        return self._name

    def is_cpu(self) -> bool:
        return not self._on_gpu

    def as_numpy(self) -> np.ndarray:
        if self._on_gpu:
            raise TritonModelException("Tensor is stored in GPU and cannot be converted to NumPy.")
        return self._array


class InferenceResponse:
    def __init__(
        self, output_tensors: Sequence[Tensor] = (), error: TritonError | None = None
    ) -> None:
        self._tensors, self._error = list(output_tensors), error

    def output_tensors(self) -> list[Tensor]:
        return self._tensors

    def has_error(self) -> bool:
        return self._error is not None

    def error(self) -> TritonError | None:
        return self._error


class Sender:
    """An InferenceResponseSender: nothing may follow the final flag."""

    def __init__(self, request: Request) -> None:
        self._request = request
        self.sent: list[InferenceResponse] = []
        self.closed = threading.Event()

    def send(self, response: InferenceResponse | None = None, flags: int = 0) -> None:
        if self.closed.is_set():
            raise TritonModelException("Unable to send response. Response sender has been closed.")
        if response is not None:
            self.sent.append(response)
            self._request.after_each(self._request)
        if flags == FINAL:
            self.closed.set()

    def is_cancelled(self) -> bool:
        return self._request.cancelled


class Request:
    """What a client sent."""

    def __init__(
        self,
        after_each: Callable[[Request], None] = lambda request: None,
        **inputs: np.ndarray,
    ) -> None:
        """`after_each` is told of every response that the client got."""
        self._inputs = [Tensor(name, array) for name, array in inputs.items()]
        self.after_each, self.cancelled = after_each, False
        self.sender = Sender(self)

    def inputs(self) -> list[Tensor]:
        return self._inputs

    def get_response_sender(self) -> Sender:
        return self.sender

    def is_cancelled(self) -> bool:
        return self.cancelled


class PreferredMemory:
    def __init__(self, preferred_memory_type: str, preferred_device_id: int = 0) -> None:
        self.kind = preferred_memory_type


def _by_name(tensors: Sequence[Tensor], name: str) -> Tensor | None:
    return next((tensor for tensor in tensors if tensor.name() == name), None)


class Server:
    """A model repository, loaded; its graphs run with the ONNX Runtime that is here."""

    def __init__(self, repository: Path, on_gpu: bool = False) -> None:
        """`on_gpu`: outputs of graphs stay there unless a request prefers the CPU's memory."""
        self.on_gpu, self.asked = on_gpu, list[tuple[str, int]]()  # model, rows
        self.configs: dict[str, Any] = {}
        self.sessions: dict[str, onnxruntime.InferenceSession] = {}
        for folder in sorted(path for path in repository.iterdir() if path.is_dir()):
            config = self.configs[folder.name] = parsed(folder / "config.pbtxt")
            assert config.name == folder.name and (folder / "1").is_dir()
            if config.backend == "onnxruntime":
                path = folder / "1" / config.default_model_filename
                self.sessions[folder.name] = _session(config, path)
        for config in self.configs.values():
            if config.platform == "ensemble":
                self._check_ensemble(config)

    def _check_ensemble(self, config: Any) -> None:
        known = {one.name: one for one in (*config.input, *config.output)}
        for step in config.ensemble_scheduling.step:
            model = self.configs[step.model_name]
            assert model.max_batch_size == 0 or model.max_batch_size >= config.max_batch_size
            sides = (model.input, model.output)
            inputs, outputs = ({one.name: one for one in side} for side in sides)
            assert set(step.input_map) == set(inputs) and set(step.output_map) <= set(outputs)
            for mapped, side in ((step.input_map, inputs), (step.output_map, outputs)):
                for name, tensor in mapped.items():
                    there = known.setdefault(tensor, side[name])
                    assert there.data_type == side[name].data_type
                    assert _alike(there.dims, side[name].dims), (tensor, there, side[name])

    def infer(self, model: str, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """What the model gives; every array is held against its configuration."""
        config = self.configs[model]
        assert set(inputs) == {one.name for one in config.input}
        for one in config.input:
            _fits(config, one, inputs[one.name])
        rows = len(next(iter(inputs.values())))
        self.asked.append((model, rows))
        if config.platform == "ensemble":
            return self._ensemble(config, inputs)
        feeds = {
            one.name: inputs[one.name].reshape((rows, *one.reshape.shape))
            if one.HasField("reshape")
            else inputs[one.name]
            for one in config.input
        }
        arrays: list[Any] = list(self.sessions[model].run([o.name for o in config.output], feeds))
        given: dict[str, np.ndarray] = {}
        for one, array in zip(config.output, arrays, strict=True):
            shaped = array.reshape((rows, *one.dims)) if one.HasField("reshape") else array
            _fits(config, one, shaped)
            given[one.name] = shaped
        return given

    def _ensemble(self, config: Any, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        tensors, waiting = dict(inputs), list(config.ensemble_scheduling.step)
        while waiting:
            step = next(s for s in waiting if set(s.input_map.values()) <= set(tensors))
            waiting.remove(step)
            given = self.infer(step.model_name, {n: tensors[t] for n, t in step.input_map.items()})
            tensors |= {tensor: given[name] for name, tensor in step.output_map.items()}
        return {one.name: tensors[one.name] for one in config.output}

    def utils(self) -> ModuleType:
        """The module triton_python_backend_utils of a Python model in this server."""
        server, module = self, ModuleType("triton_python_backend_utils")

        class InferenceRequest:
            def __init__(
                self,
                *,
                model_name: str,
                requested_output_names: Sequence[str],
                inputs: Sequence[Tensor],
                preferred_memory: PreferredMemory | None = None,
            ) -> None:
                assert inputs and requested_output_names
                self._model, self._outputs = model_name, requested_output_names
                self._inputs = {tensor.name(): tensor.as_numpy() for tensor in inputs}
                self._on_gpu = server.on_gpu and not (
                    preferred_memory and preferred_memory.kind == "cpu"
                )

            def exec(self) -> InferenceResponse:
                try:
                    given = server.infer(self._model, self._inputs)
                except Exception as error:
                    return InferenceResponse(error=TritonError(f"failed: {error}"))
                return InferenceResponse(
                    [Tensor(name, given[name], self._on_gpu) for name in self._outputs]
                )

        logged: list[str] = []
        names: dict[str, Any] = {
            "Tensor": Tensor,
            "TritonError": TritonError,
            "TritonModelException": TritonModelException,
            "InferenceRequest": InferenceRequest,
            "InferenceResponse": InferenceResponse,
            "PreferredMemory": PreferredMemory,
            "TRITONSERVER_MEMORY_CPU": "cpu",
            "TRITONSERVER_MEMORY_GPU": "gpu",
            "TRITONSERVER_RESPONSE_COMPLETE_FINAL": FINAL,
            "Logger": SimpleNamespace(log_error=logged.append),
            "get_input_tensor_by_name": lambda asked, name: _by_name(asked.inputs(), name),
            "get_output_tensor_by_name": lambda said, name: _by_name(said.output_tensors(), name),
            "logged": logged,
        }
        vars(module).update(names)
        return module


@contextmanager
def python_model(
    repository: Path, name: str = "alm", server: Server | None = None, **settings: str
) -> Iterator[Any]:
    """The Python model of this name as Triton's stub opens it: its file, in a module of its own.

    `settings` take the place of parameters of its configuration.
    """
    config = parsed(repository / name / "config.pbtxt")
    for key, value in settings.items():
        config.parameters[key].string_value = value
    plain = json_format.MessageToJson(config, preserving_proto_field_name=True)
    before = sys.modules.get("triton_python_backend_utils")
    sys.modules["triton_python_backend_utils"] = (server or Server(repository)).utils()
    try:
        spec = util.spec_from_file_location("model", repository / name / "1" / "model.py")
        assert spec and spec.loader
        module = util.module_from_spec(spec)
        spec.loader.exec_module(module)
        model = module.TritonPythonModel()
        args = {"model_config": plain, "model_repository": str(repository / name)}
        model.initialize(args | {"model_version": "1", "model_name": name})
        try:
            yield model
        finally:
            model.finalize()
    finally:
        del sys.modules["triton_python_backend_utils"]
        if before:
            sys.modules["triton_python_backend_utils"] = before


def _session(config: Any, path: Path) -> onnxruntime.InferenceSession:
    """The graph, where the backend would take it with this configuration."""
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, settings, ["CPUExecutionProvider"])
    for ours, graph, exact in (
        (config.input, session.get_inputs(), False),
        (config.output, session.get_outputs(), True),
    ):
        its = {one.name: one for one in graph}
        assert {one.name for one in ours} == set(its)
        for one in ours:
            kind = MESSAGES.DataType.Name(one.data_type).removeprefix("TYPE_").lower()
            assert its[one.name].type == f"tensor({kind.replace('fp32', 'float')})"
            shape = [n if isinstance(n, int) else -1 for n in its[one.name].shape]
            dims = list(one.reshape.shape if one.HasField("reshape") else one.dims)
            if config.max_batch_size:
                assert shape[0] == -1
                dims = [-1, *dims]
            assert len(shape) == len(dims)
            for wanted, there in zip(dims, shape, strict=True):
                assert wanted == there or (there == -1 and not exact), (config.name, one.name)
    firsts = {one.shape[0] for one in (*session.get_inputs(), *session.get_outputs())}
    # Triton gives a batch of its own to a graph that takes any and is said to take none.
    assert config.max_batch_size or any(isinstance(first, int) for first in firsts)
    return session


def _fits(config: Any, one: Any, array: np.ndarray) -> None:
    kind = MESSAGES.DataType.Name(one.data_type).removeprefix("TYPE_").lower()
    assert array.dtype.name == kind.replace("fp", "float"), (config.name, one.name, array.dtype)
    shape = list(array.shape)
    if config.max_batch_size:
        assert 1 <= shape.pop(0) <= config.max_batch_size, (config.name, one.name, array.shape)
    assert _alike(shape, one.dims), (config.name, one.name, array.shape, one.dims)


def _alike(a: Sequence[int], b: Sequence[int]) -> bool:
    return len(a) == len(b) and all(x == y or -1 in (x, y) for x, y in zip(a, b, strict=True))
