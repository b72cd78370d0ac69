"""Example feeds for a part, from its ports alone."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import numpy as np

from alm.ports import Port, Span, is_carried, is_slot

Feeds = dict[str, np.ndarray]
Sizes = dict[str, int]

MOST_BYTES = 128 * 2**20  # of the feeds of one comparison


def traced_sizes(spans: Mapping[str, Span], batch: int) -> Sizes:
    """Sizes to trace with: all at least 2 and all different, since 0, 1 and equals are baked in."""
    sizes = {axis: max(2, span.usual) + i for i, (axis, span) in enumerate(spans.items())}
    sizes = {axis: min(size, spans[axis].most) for axis, size in sizes.items()}
    return _fitting(sizes | {"batch": batch})


def cases(
    ports: Mapping[str, Port], spans: Mapping[str, Span], dynamic_batch: bool
) -> Iterator[Sizes]:
    """Sizes to compare with: batches 1 to 3, and each axis least, usual and long in turn.

    The turns are shifted from axis to axis: a long prompt meets an empty cache, a single token
    meets a filled one, a chunk meets both. Where the feeds would be more than MOST_BYTES (the cache
    of a large LLM), the axes are shorter.
    """
    for i, batch in enumerate((1, 2, 3)):
        share = 1.0
        while True:
            sizes = {"batch": batch if dynamic_batch else 1}
            for j, (axis, span) in enumerate(spans.items()):
                usual = max(span.least + 1, int(share * (span.usual - 1)))
                long = max(usual, int(share * min(span.most, 3 * span.usual)))
                sizes[axis] = (span.least, min(usual, span.most), long)[(i + j) % 3]
            sizes = _fitting(sizes)
            if share < 0.05 or _bytes(ports, sizes) <= MOST_BYTES:
                break
            share /= 2
        yield sizes


def small(spans: Mapping[str, Span]) -> Sizes:
    """Sizes for one row that is soon computed: an eighth of what is usual."""
    sizes = {n: min(s.most, max(s.least, 2, s.usual // 8)) for n, s in spans.items()}
    return _fitting(sizes | {"batch": 1})


def _bytes(ports: Mapping[str, Port], sizes: Sizes) -> int:
    return sum(
        math.prod(port.shape(sizes)) * np.dtype(port.dtype).itemsize for port in ports.values()
    )


def _fitting(sizes: Sizes) -> Sizes:
    # A cache of fixed capacity holds its past and what comes next.
    if "capacity" in sizes:
        sizes["capacity"] = sizes["past"] + sizes["seq"] + 3
    return sizes


def make(
    ports: Mapping[str, Port], spans: Mapping[str, Span], sizes: Sizes, seed: int = 0
) -> Feeds:
    """Random feeds of these sizes.

    Floats are normal with deviation 0.5. A port that counts an axis is full in its first row and
    random in the others; ids are any that there are.
    """
    noise = np.random.default_rng(seed)
    feeds: Feeds = {}
    for name, port in ports.items():
        shape, dtype = port.shape(sizes), np.dtype(port.dtype)
        if port.counts:
            most = sizes[port.counts]
            least = min(spans[port.counts].least, most)
            feeds[name] = noise.integers(least, most, shape, endpoint=True).astype(dtype)
            feeds[name][:1] = most
        elif port.below:
            feeds[name] = noise.integers(0, port.below, shape).astype(dtype)
        elif dtype.kind == "f":
            # A slot's term must not drown what a lever costs.
            deviation = 0.5 / math.sqrt(shape[1]) if is_slot(name) else 0.5
            feeds[name] = (deviation * noise.standard_normal(shape)).astype(dtype)
        elif is_carried(name):  # of integers
            feeds[name] = noise.integers(-127, 127, shape, endpoint=True).astype(dtype)
        else:
            raise ValueError(f"port {name} of {port.dtype} does not say what it counts")
    return feeds
