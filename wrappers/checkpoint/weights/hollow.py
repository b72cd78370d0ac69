"""Parts without weights: what is large is read when it is needed and let go after it.

A decoder of 3 billion parameters is 12.8 GB in float32. `attach` leaves it on the meta device and
notes where its weights are; whoever runs the part then holds one layer at a time, and whoever
traces it needs no values at all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from alm.errors import BadCheckpoint
from wrappers.checkpoint.weights.fit import faults
from wrappers.checkpoint.weights.memory import trim
from wrappers.checkpoint.weights.tensors import Weights

ModuleT = TypeVar("ModuleT", bound=nn.Module)

PIECE = 8192  # outputs of a large Linear that are computed at a time


def hollow(build: Callable[[], ModuleT]) -> ModuleT:
    """What `build` builds, its parameters on the meta device.

    Buffers that are computed must say device="cpu", or they are lost.
    """
    with torch.device("meta"):
        part = build()
    return part.eval().requires_grad_(False)


def attach(part: ModuleT, weights: Weights) -> ModuleT:
    """Tell a hollow part where its weights are.

    Calling it then reads them layer by layer: an item of a ModuleList when it is called, a Linear
    outside of any piece by piece, all else when the part is called.

    Raises:
        BadCheckpoint: naming every missing and every misshapen weight at once.
    """
    wrong = faults(part, weights.shapes, weights.where)
    if wrong:
        raise BadCheckpoint(wrong[0])
    part.__dict__["source"] = weights
    stations = dict(_stations(part))
    for path, station in stations.items():
        inner = [p for p in stations if p != path and p.startswith(f"{path}." if path else "")]
        names = [
            f"{path}.{n}".lstrip(".")
            for n, _ in station.named_parameters(remove_duplicate=False)
            if not any(f"{path}.{n}".lstrip(".").startswith(f"{p}.") for p in inner)
        ]
        if isinstance(station, nn.Linear):
            station.forward = partial(_in_pieces, part, path, station)  # pyright: ignore
        else:
            _read_when_called(part, station, names)
    return part


def weight(part: nn.Module, name: str) -> Tensor:
    """A weight of a part, attached or filled, in the dtype of its checkpoint."""
    parameter = part.get_parameter(name)
    return part.__dict__["source"][name] if parameter.is_meta else parameter.detach()


def _stations(part: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Where weights are read: the part itself, items of ModuleLists, Linears outside of them."""
    yield "", part
    lists = [n for n, m in part.named_modules() if isinstance(m, nn.ModuleList)]
    outermost = [n for n in lists if not any(n.startswith(f"{o}.") for o in lists if o != n)]
    for name in outermost:
        for i, item in enumerate(part.get_submodule(name)):  # pyright: ignore
            yield f"{name}.{i}", item
    for name, module in part.named_modules():
        if isinstance(module, nn.Linear) and not any(name.startswith(f"{o}.") for o in outermost):
            yield name, module


def _in_pieces(part: nn.Module, path: str, linear: nn.Linear, x: Tensor) -> Tensor:
    """The Linear at `path`: an LLM's head alone is 1.6 GB in float32, and half that as stored."""
    if not linear.weight.is_meta or torch.compiler.is_exporting():
        return nn.functional.linear(x, linear.weight, linear.bias)
    stored = weight(part, f"{path}.weight")
    pieces = [nn.functional.linear(x, piece.to(x.dtype)) for piece in stored.split(PIECE)]
    y = torch.cat(pieces, -1)
    return y if linear.bias is None else y + weight(part, f"{path}.bias").to(x.dtype)


def _read_when_called(part: nn.Module, station: nn.Module, names: list[str]) -> None:
    read_here: list[str] = []

    def read(*_: Any) -> None:
        if torch.compiler.is_exporting():
            return
        read_here[:] = [name for name in names if part.get_parameter(name).is_meta]
        for name in read_here:
            _put(part, name, weight(part, name).to(part.get_parameter(name).dtype))

    def let_go(*_: Any) -> None:
        for name in read_here:
            _put(part, name, part.get_parameter(name).to("meta"))
        read_here.clear()
        trim()

    station.register_forward_pre_hook(read)
    station.register_forward_hook(let_go, always_call=True)


def _put(part: nn.Module, name: str, value: Tensor) -> None:
    path, _, leaf = name.rpartition(".")
    owner = part.get_submodule(path)
    owner._parameters[leaf] = nn.Parameter(value, requires_grad=False)


def filled(part: ModuleT) -> ModuleT:
    """The part with all its weights read, to stay; for many runs of a small one."""
    for name, parameter in list(part.named_parameters(remove_duplicate=False)):
        if parameter.is_meta:
            _put(part, name, weight(part, name).to(part.get_parameter(name).dtype))
    return part


@contextmanager
def weightless(part: nn.Module) -> Iterator[None]:
    """All parameters replaced by stand-ins without values, on the device of the inputs."""
    real = dict(part.named_parameters(remove_duplicate=False))
    with FakeTensorMode(allow_non_fake_inputs=True):
        fakes = {
            name: torch.empty(p.shape, dtype=p.dtype, device="cpu") for name, p in real.items()
        }
    for name, fake in fakes.items():
        _put(part, name, fake)
    try:
        yield
    finally:
        for name, parameter in real.items():
            path, _, leaf = name.rpartition(".")
            part.get_submodule(path)._parameters[leaf] = parameter
