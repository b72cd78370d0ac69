"""A part that is run piece by piece, where nothing that it computes crosses from one to the next.

So an hour of sound takes the memory of a few seconds, and a clip of a few seconds no more than its
own length.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from alm.artifacts.part import Part
from alm.session import Session


def run(part: Part, session: Session, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The part's outputs for feeds of any length along its axis `part.pieces`.

    A row whose own length has ended is left out of the pieces that follow; what the others make
    then stands beside zeros.

    Returns:
        Outputs of all pieces, one after the other along the second axis; of those with one axis
        only, counts of what the pieces made, the sums.
    """
    most = max(part.spans[part.pieces].most, 1)
    cut = {
        name: port.axes.index(part.pieces)
        for name, port in part.inputs.items()
        if part.pieces in port.axes
    }
    counted = [name for name, port in part.inputs.items() if port.counts == part.pieces]
    whole = max(feeds[name].shape[axis] for name, axis in cut.items())
    if whole <= most:
        return session.run(feeds)
    outputs = []
    for start in range(0, whole, most):
        piece = {name: _cut(feeds[name], axis, start, most) for name, axis in cut.items()}
        piece |= {name: (feeds[name] - start).clip(0, most) for name in counted}
        outputs.append(_rows(session, {**feeds, **piece}, counted))
    return {name: _joined([output[name] for output in outputs]) for name in outputs[0]}


def _cut(array: np.ndarray, axis: int, start: int, most: int) -> np.ndarray:
    place = (slice(None),) * axis + (slice(start, start + most),)
    return np.ascontiguousarray(array[place])


def _rows(
    session: Session, feeds: Mapping[str, np.ndarray], counted: list[str]
) -> dict[str, np.ndarray]:
    """One piece of all rows; of those that have ended, zeros."""
    rows = len(next(iter(feeds.values())))
    there = (
        np.all([feeds[name] > 0 for name in counted], axis=0) if counted else np.ones(rows, bool)
    )
    if there.all():
        return session.run(feeds)
    outputs = session.run({name: array[there] for name, array in feeds.items()})
    full = {
        name: np.zeros((rows, *array.shape[1:]), array.dtype) for name, array in outputs.items()
    }
    for name, array in outputs.items():
        full[name][there] = array
    return full


def _joined(outputs: list[np.ndarray]) -> np.ndarray:
    return np.concatenate(outputs, axis=1) if outputs[0].ndim > 1 else np.sum(outputs, axis=0)
