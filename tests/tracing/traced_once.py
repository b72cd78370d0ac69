"""A memo of torch.onnx.export: a part is traced once in a run, whatever its weights are.

A trace reads no weight, so parts that differ in weights alone have one graph. Parts of a class that
a test made, and parts traced while a test has changed the code of a wrapper, are traced each time.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, NoReturn

import onnx_ir as ir
import pytest
import torch
from filelock import FileLock  # of torch

import wrappers
from alm import ports
from exporters import graph
from tests.tracing.trace_key import Unknown, key_of

# What a file of a graph cannot hold otherwise: the order of all initializers, how many of them were
# taken out, and how many names were given to nodes and values so far.
ORDER, WEIGHTS, NAMED = "tests.order", "tests.weights", "tests.named"

UNTRACED = "wrappers.checkpoint.adapters"  # done when a part is traced; imports peft, for a second


@contextmanager
def traced_once(folder: Path) -> Iterator[Memo]:
    """Inside, `graph.trace` takes from `folder` what it, or another process, traced before."""
    memo = Memo(folder, torch.onnx.export)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.onnx, "export", memo)
        yield memo


class Memo:
    """In the place of torch.onnx.export."""

    def __init__(self, folder: Path, export: Callable[..., Any]) -> None:
        folder.mkdir(exist_ok=True)
        self.folder, self.export = folder, export
        self.code = Code()
        self.taken = 0

    def __call__(self, module: Any, *args: Any, **kwargs: Any) -> Any:
        key = self.key(module, *args, **kwargs)
        if not key:
            return self.export(module, *args, **kwargs)
        path = self.folder / f"{key}.onnx"
        with FileLock(f"{path}.lock"):
            if path.exists():
                self.taken += 1
                return SimpleNamespace(model=read(path))
            program = self.export(module, *args, **kwargs)
            names = {name for name, _ in module.named_parameters(remove_duplicate=False)}
            write(program.model, names, path)
        return program

    def key(self, module: Any, *args: Any, **kwargs: Any) -> str:
        """What a trace is kept under; "": it is not kept."""
        if type(module) is not graph.Flat or self.code.changed():
            return ""
        try:
            return key_of((module, args, kwargs), self.code.has)
        except Unknown:
            return ""


class Code:
    """What the modules define that a trace runs, before any test has changed it."""

    def __init__(self) -> None:
        names = [m.name for m in pkgutil.walk_packages(wrappers.__path__, f"{wrappers.__name__}.")]
        found = [importlib.import_module(name) for name in names if not name.startswith(UNTRACED)]
        self.modules = {module.__name__: module for module in (wrappers, graph, ports, *found)}
        self.before = self._now()

    def has(self, module: str) -> bool:
        return module in self.modules

    def changed(self) -> bool:
        """Whether anything is another object now; what was added is reached by no old code."""
        now = self._now()
        return any(now.get(name, self) is not thing for name, thing in self.before.items())

    def _now(self) -> dict[tuple[object, ...], object]:
        found: dict[tuple[object, ...], object] = {}
        for module in self.modules.values():
            for name, thing in vars(module).items():
                found[module.__name__, name] = thing
                for inner, content in _inside(module, name, thing):
                    found[module.__name__, name, inner] = content
        return found


def _inside(module: ModuleType, name: str, thing: object) -> Collection[tuple[object, object]]:
    """What a test may change without replacing `thing`."""
    if name.startswith("__"):
        return ()
    if isinstance(thing, type):
        return vars(thing).items() if thing.__module__ == module.__name__ else ()
    return thing.items() if isinstance(thing, dict) else ()


def write(model: ir.Model, weights: Collection[str], path: Path) -> None:
    """The graph without its weights, which become inputs."""
    shell = model.clone()
    inside = shell.graph.initializers
    shell.graph.metadata_props[ORDER] = "\n".join(inside)
    taken = [inside.pop(name) for name in list(inside) if name in weights]
    shell.graph.metadata_props[WEIGHTS] = str(len(taken))
    names = model.graph._name_authority
    shell.graph.metadata_props[NAMED] = f"{names._node_counter} {names._value_counter}"
    for value in taken:
        value.const_value = None
        shell.graph.inputs.append(value)
    part = path.with_name(f"{path.name}.part")
    ir.save(shell, part, format="protobuf")
    part.rename(path)


def read(path: Path) -> ir.Model:
    """The graph with stand-ins for its weights, of which only shapes may be asked."""
    model = ir.load(path, format="protobuf")
    graph = model.graph
    for _ in range(int(graph.metadata_props.pop(WEIGHTS))):
        value = graph.inputs.pop()
        assert value.shape is not None and value.dtype is not None
        value.const_value = ir.LazyTensor(
            _no_values, dtype=value.dtype, shape=value.shape, name=value.name
        )
        graph.initializers.add(value)
    values = {name: graph.initializers.pop(name) for name in list(graph.initializers)}
    for name in graph.metadata_props.pop(ORDER).splitlines():
        graph.initializers.add(values.pop(name))
    assert not values
    names, counters = graph._name_authority, graph.metadata_props.pop(NAMED).split()
    names._node_counter, names._value_counter = map(int, counters)
    return model


def _no_values() -> NoReturn:
    raise AssertionError("a trace holds no weights")
