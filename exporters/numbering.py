"""What rounding costs where things are numbered: an id is another one, or it is not.

Errors of an encoder say little where a part behind it takes the nearest row of a code book. So
ids are made of what the module gives and of what the graph gives, and those that differ counted.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

import wrappers
from alm.ports import Port
from alm.session import BackendOptions
from exporters import graph, parity
from wrappers import Checkpoint, Wrapper


def reader(of: Wrapper, checkpoint: Checkpoint, dialect: str) -> Wrapper | None:
    """The part that makes ids of what `of` gives, or none; other parts are not loaded."""
    given = of.outputs.keys() | of.inputs.keys()
    for name, role in checkpoint.roles.items():
        if role in wrappers.PARTS and _numbers(role, checkpoint.made_by.get(name, name)):
            part = checkpoint.part(name, dialect)
            if part.inputs.keys() <= given and part.inputs.keys() & of.outputs.keys():
                return part
    return None


def _numbers(role: str, file: str) -> bool:
    """Whether the part of this file is `exact`."""
    if file not in wrappers.with_role(role):
        return False
    kinds = vars(wrappers.pick_role(role, file)).values()
    return any(isinstance(kind, type) and getattr(kind, "exact", False) for kind in kinds)


@torch.no_grad()
def changed(
    path: Path, truth: parity.Truth, inputs: Mapping[str, Port], by: Wrapper
) -> dict[str, float]:
    """The share of ids that are others, by the output of `by`, for the feeds of the comparison.

    Args:
        path: the graph, whose inputs are `inputs` (see `parity.measure`).
        truth: the module in float32.
        by: what makes the ids, in float32 both times; negative ones are behind a row's end.
    """
    session = graph.opened(path, truth, BackendOptions("cpu", lean=True))
    differ, count = dict.fromkeys(by.outputs, 0), dict.fromkeys(by.outputs, 0)
    for example, wanted in truth.cases():
        fed = {name: truth.fed(name, example, port) for name, port in inputs.items()}
        ours = _ids(by, {**example, **session.run(fed)})
        theirs = _ids(by, {**example, **dict(zip(truth.outputs, wanted, strict=True))})
        for name, got, want in zip(by.outputs, ours, theirs, strict=True):
            differ[name] += int((got != want).sum())
            count[name] += int((want >= 0).sum())
    return {name: differ[name] / max(1, count[name]) for name in differ}


def _ids(by: Wrapper, tensors: Mapping[str, np.ndarray]) -> tuple[np.ndarray, ...]:
    given = (tensors[name].astype(port.dtype, copy=False) for name, port in by.inputs.items())
    made = by(*(torch.from_numpy(array) for array in given))
    return tuple(ids.numpy() for ids in (made if isinstance(made, tuple) else (made,)))
