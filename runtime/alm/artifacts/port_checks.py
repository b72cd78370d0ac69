"""What the ports of a manifest's parts may be: kinds and bounds, checked when it is loaded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from alm.onnxfile.summary import BITS, DTYPES, TYPES
from alm.parsing import Misshapen, is_a
from alm.ports import (
    CACHE_IN,
    DELAY,
    FIRST,
    FROM_END,
    PROMPT,
    RANK,
    SLOT,
    Port,
    given_as,
    is_carried,
    is_slot,
)

# Sizes are bounded before anything of that size is allocated.
MOST_AXIS = 2**40  # of a port, or of a span
MOST_AXES = 16
MOST_PORT = 2**34  # bytes of a port whose dynamic axes are 1: a cache of one row and layer
KINDS = frozenset(DTYPES[1:]) | frozenset(TYPES.values())

CACHE_AXES = ({"past"}, {"capacity"})
CACHE_KINDS = ("float32", "float16", "int8", "uint8", "float64")


def check_decoder(inputs: Mapping[str, Port], outputs: Mapping[str, Port], where: str) -> None:
    """Refuse, with Misshapen, a decoder that cannot be fed: its cache's axes have other names."""
    for name, sides in (("inputs_embeds", inputs), ("logits", outputs)):
        if name not in sides:
            raise Misshapen(f"{where} lacks {name!r}")
    fed = ("inputs_embeds", "past_lengths", "seq_lengths", FIRST, DELAY, PROMPT, FROM_END)
    if odd := [n for n in inputs if n not in fed and not is_carried(n) and not is_slot(n)]:
        raise Misshapen(f"{where} takes {odd[0]!r:.80}, which nothing gives")
    for name, port in inputs.items():
        if not is_carried(name):
            continue
        stated = f"'axes' of {name:.80} of {where} are {list(port.axes)!r:.80}"
        named = set(port.axes)
        if port.axes[:1] not in (("batch",), (1,)) or len(port.axes) < 2:
            raise Misshapen(f"{stated}, and the first must be 'batch' or 1")
        if named - {"batch"} - {a for a in named if isinstance(a, int)} not in CACHE_AXES:
            raise Misshapen(f"{stated}, and besides there must be one of 'past' and 'capacity'")
        if given_as(name) not in outputs:
            raise Misshapen(f"{where} gives no {given_as(name):.80} for {name:.80}")
        kinds = ("int64",) if name == f"{CACHE_IN}positions" else CACHE_KINDS
        if port.dtype not in kinds:
            raise Misshapen(f"'dtype' of {name:.80} of {where} is {port.dtype!r}, no cache's")


def check_state(inputs: Mapping[str, Port], outputs: Mapping[str, Port], where: str) -> None:
    """Refuse, with Misshapen, a part before the decoder whose state has no size, or no way on."""
    for name, port in inputs.items():
        if not is_carried(name):
            continue
        stated = f"'axes' of {name:.80} of {where} are {list(port.axes)!r:.80}"
        if port.axes[:1] not in (("batch",), (1,)):
            raise Misshapen(f"{stated}, and the first must be 'batch' or 1")
        if any(isinstance(axis, str) for axis in port.axes[1:]):
            raise Misshapen(f"{stated}, and a state is of one size from the second on")
        twin = given_as(name)
        if twin not in outputs:
            raise Misshapen(f"{where} gives no {twin:.80} for {name:.80}")
        if outputs[twin] != port:
            raise Misshapen(f"{twin:.80} of {where} is another tensor than {name:.80}")


def check_slots(
    part: str, slots: Mapping[str, Sequence[Any]], inputs: Mapping[str, Port], where: str
) -> None:
    """Refuse, with Misshapen, slots that are not those of the inputs, or of other shapes."""
    wanted: list[str] = []
    for group, modules in slots.items():
        down, up = (f"{SLOT}{part}.{group}.{side}" for side in ("down", "up"))
        wanted += [down, up]
        axes: list[tuple[Any, ...]] = [inputs[n].axes if n in inputs else () for n in (down, up)]
        layers = len(modules)
        there = [len(a) == 3 and a[0] == layers for a in axes]
        if not all(there) or axes[0][2] != RANK or axes[1][1] != RANK:
            raise Misshapen(f"{where} has no inputs for its slots {group:.80}")
        if not is_a(axes[0][1], int) or not is_a(axes[1][2], int):
            raise Misshapen(f"slots {group:.80} of {where} have no size")
        if any(inputs[n].dtype != "float32" for n in (down, up)):
            raise Misshapen(f"slots {group:.80} of {where} are no float32")
    if odd := [name for name in inputs if is_slot(name) and name not in wanted]:
        raise Misshapen(f"{where} takes {odd[0]:.80}, which is no slot of its own")


def check_port(dtype: str, axes: tuple[Any, ...], where: str) -> None:
    """Refuse, with Misshapen, a port of a type that there is not, or of a size that nobody has."""
    if dtype not in KINDS:
        raise Misshapen(f"'dtype' of {where} is {dtype!r:.80}, which is no type of tensors")
    if not all(is_a(a, str) or (is_a(a, int) and 0 <= a <= MOST_AXIS) for a in axes):
        raise Misshapen(f"'axes' of {where} are {axes!r:.80}, not numbers and names")
    if len(axes) > MOST_AXES:
        raise Misshapen(f"'axes' of {where} are {len(axes)}, {MOST_AXES} at most")
    size = BITS.get(dtype, 8)
    for axis in axes:
        size *= axis if isinstance(axis, int) else 1
        if size > 8 * MOST_PORT:
            raise Misshapen(f"'axes' of {where} are {axes!r:.80}, more than {MOST_PORT} bytes")
