"""The parts before the decoder as one ensemble of Triton: samples in, embeddings of sound out.

Triton passes a tensor from model to model as it is. What our pipeline does besides cannot be a step
of an ensemble, and then there is none: cutting a tensor into windows of a part's fixed size or into
pieces of an axis, carrying a state, and giving a part the weights of an adapter.
"""

from __future__ import annotations

from collections.abc import Sequence

from alm.artifacts.manifest import Manifest
from alm.artifacts.part import Part
from alm.errors import BadArtifacts
from alm.ports import Port, is_carried, is_slot
from alm.text.units import NAME as UNITS
from alm.triton.onnx_models import batched, tensor
from alm.triton.pbtxt import Message, pairs
from alm.triton.settings import Settings

GIVEN = ("pcm", "pcm_lengths")  # what the first parts take
EMBEDS = ("audio_embeds", "audio_embeds_lengths")


def front(manifest: Manifest) -> list[Part]:
    """The parts before the decoder, in the order of a run."""
    return [part for part in manifest.parts if part.role not in ("table", "decoder")]


def takes(manifest: Manifest) -> dict[str, Port]:
    """What goes into the ensemble."""
    parts = front(manifest)
    made = {name for part in parts for name in part.outputs}
    taken = {name: port for part in parts for name, port in part.inputs.items()}
    return {name: port for name, port in taken.items() if name not in made}


def gives(manifest: Manifest) -> dict[str, Port]:
    """What comes out of it, for the decoder."""
    wanted = (UNITS,) if manifest.facts.units.count else EMBEDS
    made = {name: port for part in front(manifest) for name, port in part.outputs.items()}
    return {name: made[name] for name in wanted if name in made}


def why_not(manifest: Manifest) -> str:
    """Why the parts before the decoder cannot be an ensemble, in words; "" where they can."""
    made: dict[str, Port] = {}
    kinds: set[bool] = set()
    for part in front(manifest):
        try:
            kinds.add(batched(part))
        except BadArtifacts:
            return f"tensors of {part.name} do not begin with a batch"
        for name, port in part.inputs.items():
            if is_carried(name):
                return f"{part.name} carries a state from one step of sound to the next"
            if is_slot(name):
                return f"{part.name} takes an adapter's weights with every request"
            source = made.get(name)
            if source is None and name not in GIVEN:
                return f"nothing makes {name}, which {part.name} takes"
            if _windowed(port, source or Port(port.dtype, ("batch", "samples"))):
                return f"{part.name} hears a clip in windows of a fixed size"
        if part.pieces and not _whole(part, manifest):
            return f"{part.name} hears a clip in pieces along its {part.pieces}"
        made |= part.outputs
    if len(kinds) > 1:
        return "some parts take any batch and others one row"
    return ""


def _windowed(taken: Port, made: Port) -> bool:
    """Whether a tensor may be longer than the part's fixed size of an axis."""
    axes = zip(taken.axes[1:], made.axes[1:], strict=False)
    return any(isinstance(wanted, int) and wanted != there for wanted, there in axes)


def _whole(part: Part, manifest: Manifest) -> bool:
    """Whether a clip never fills more than one of the part's pieces.

    That is known where its pieces are of embeddings, a clip is never longer than a window, and the
    embeddings of a window are fewer than those of a piece.
    """
    facts, embeds = manifest.facts, part.outputs.get(EMBEDS[0])
    counts = embeds is not None and embeds.axes[1:2] == (part.pieces,)
    most = facts.dimensions.audio_tokens
    if most is None or facts.audio.long == "joined":
        return False
    return counts and most <= part.spans[part.pieces].most


def config(manifest: Manifest, settings: Settings) -> Message:
    """The ensemble's configuration; `why_not` has nothing to say."""
    parts = front(manifest)
    rows = batched(parts[0])
    outputs = gives(manifest)
    name = settings.ensemble

    def side(ports: dict[str, Port]) -> list[Message]:
        return [tensor(n, port, rows, name, reshape=False) for n, port in ports.items()]

    return {
        "name": name,
        "platform": "ensemble",
        "max_batch_size": settings.batch if rows else 0,
        "input": side(takes(manifest)),
        "output": side(outputs),
        "ensemble_scheduling": {
            "step": [_step(parts, i, settings, set(outputs)) for i in range(len(parts))]
        },
    }


def _step(parts: Sequence[Part], i: int, settings: Settings, outputs: set[str]) -> Message:
    """Tensors keep their names; what no later part takes is not asked for."""
    later = {name for part in parts[i + 1 :] for name in part.inputs}
    part = parts[i]
    return {
        "model_name": settings.model(part),
        "model_version": -1,
        "input_map": pairs({name: name for name in part.inputs}),
        "output_map": pairs({name: name for name in part.outputs if name in later | outputs}),
    }
