"""Optimization profiles: the sizes that an engine is built for, from the ports of a part.

TensorRT chooses kernels for the usual shapes of a profile and refuses what is outside of it. A
decoder gets two in one engine: a prompt (or a chunk of it), and a single token.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from alm.artifacts.engine_files import Profile
from alm.artifacts.manifest import Part
from alm.errors import BadArtifacts, BadOption
from alm.ports import CAPACITY_STEP, RANK, Port, Span

ROOM = "capacity"  # the axis of a cache in place
CONTEXT, PROMPT = 2048, 512  # positions, where none are given and the model can do as many
# Positions of a step, of which one is usual. Were it the only one, TensorRT-RTX 1.7 would keep the
# weights of float16 and float32 products twice, once laid out for it: 4.4 GB instead of 2.5.
STEP = 2


@dataclass(frozen=True)
class Sizes:
    """The most that an engine shall take; 0 is the default, or what the model can do if less."""

    batch: int = 1  # rows at once
    context: int = 0  # positions in the cache
    prompt: int = 0  # positions at once


class Fit(NamedTuple):
    """What an engine is built for."""

    profiles: tuple[Profile, ...]  # of the inputs with an axis that moves; () where none does
    fixed: dict[str, int]  # axes that have a name in the graph and a size in the engine


def fit(part: Part, sizes: Sizes) -> Fit:
    """One profile for a part, two for a decoder; the room of a cache in place is fixed.

    Raises:
        BadOption: sizes that the model does not have.
    """
    batch = {"batch": Span(1, sizes.batch, sizes.batch)}
    if part.role != "decoder":
        return Fit(_profiles(part, {}, [batch | dict(part.spans)]), {})
    for axis in ("past", "seq"):
        if axis not in part.spans:
            raise BadArtifacts(f"the manifest's part {part.name:.80} has no span of {axis!r}")
    most = part.spans["past"].most
    context = sizes.context or min(CONTEXT, most)
    prompt = sizes.prompt or min(PROMPT, context)
    if not 1 <= prompt <= context <= most:
        raise BadOption(
            f"a prompt of {prompt} and a context of {context} were wanted; the model has room for "
            f"{most} positions, and a prompt is a part of them"
        )
    room = -(-context // CAPACITY_STEP) * CAPACITY_STEP
    in_place = any(ROOM in port.axes for port in part.inputs.values())
    fixed = {ROOM: room} if in_place else {}
    common = batch | {"past": Span(0, min(part.spans["past"].usual, context), context)}
    common |= {RANK: part.spans[RANK]} if RANK in part.spans else {}
    chunk = Span(1, min(part.spans["seq"].usual, prompt), prompt)
    step = Span(1, 1, min(STEP, prompt))
    both = [common | {"seq": chunk}, common | {"seq": step}]
    if wanted := part.spans.get("wanted"):  # logits at once: drafts go through the prompt's profile
        both[0]["wanted"] = Span(1, 1, min(wanted.most, prompt))
        both[1]["wanted"] = step
    return Fit(_profiles(part, fixed, both), fixed)


def _profiles(
    part: Part, fixed: Mapping[str, int], spans: Sequence[Mapping[str, Span]]
) -> tuple[Profile, ...]:
    ports = {name: port.fix(**fixed) for name, port in part.inputs.items()}
    moving = {n: port for n, port in ports.items() if any(isinstance(a, str) for a in port.axes)}
    if not moving:
        return ()
    profiles: list[Profile] = []
    for of in spans:
        if (lacking := _lacking(moving, of)) is not None:
            raise BadArtifacts(
                f"the manifest's part {part.name:.80} has no span of {lacking!r:.80}"
            )
        least = {axis: span.least for axis, span in of.items()}
        usual = {axis: span.usual for axis, span in of.items()}
        most = {axis: span.most for axis, span in of.items()}
        profiles.append(
            {n: (p.shape(least), p.shape(usual), p.shape(most)) for n, p in moving.items()}
        )
    return tuple(profiles)


def _lacking(ports: Mapping[str, Port], spans: Mapping[str, Span]) -> str | None:
    """A dynamic axis without a span; None when there is none."""
    named = (axis for port in ports.values() for axis in port.axes if isinstance(axis, str))
    return next((axis for axis in named if axis not in spans), None)


def fits(shapes: Mapping[str, Sequence[int]], profile: Profile) -> str:
    """What of these shapes is outside of the profile, in words; "" when nothing is."""
    for name, (least, _, most) in profile.items():
        shape = tuple(shapes[name])
        inside = len(shape) == len(least) and all(
            low <= n <= high for low, n, high in zip(least, shape, most, strict=True)
        )
        if not inside:
            return f"{name} is {list(shape)} and was built for {list(least)} to {list(most)}"
    return ""


def words(profile: Profile) -> list[str]:
    """The shapes as trtexec wants them: --minShapes=a:1x2,b:1 and so on."""
    flags = ("--minShapes", "--optShapes", "--maxShapes")
    return [
        f"{flag}=" + ",".join(f"{n}:{'x'.join(map(str, r[i]))}" for n, r in profile.items())
        for i, flag in enumerate(flags)
    ]
