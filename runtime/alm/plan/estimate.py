"""What a manifest alone holds of a model: weights, rows, operations, cache. No graph is opened."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from alm.artifacts.manifest import Manifest, Part
from alm.bench.roofline import cache_bytes
from alm.errors import BadArtifacts
from alm.facts import DimensionFacts
from alm.onnxfile import flops
from alm.ports import Port, is_carried, is_slot, taken_as
from alm.precision import Storage

TASK = "transcribe"
LETTERS = 4  # of a prompt in a token, in English
SAMPLES = 320  # of audio in a row of Whisper's or BEATs', where no span says how many there are
HOP = 160  # of audio in a frame of a spectrogram, where none does
WINDOWS = "windows"  # among sizes: how often a part of one fixed size is run


@dataclass(frozen=True)
class Stored:
    """Bytes of a weight, scales included, in a decoder's layers and in its `lm_head`."""

    layers: float
    head: float

    @classmethod
    def of(cls, storage: Storage) -> Stored:
        """Of a part that is stored so."""
        layers, head = (codes.bits / 8 for codes in (storage.layers, storage.of_head))
        whole = (int(size) if size == int(size) else size for size in (layers, head))
        return cls(*whole)  # bytes of whole weights are whole numbers in a plan, too


@dataclass(frozen=True)
class AudioPart:
    """A part before the decoder, and how many weights it has."""

    part: Part
    weights: int

    def bytes_as(self, weight: float) -> float:
        """Its bytes with so many of them a weight; front ends stay as they are."""
        return float(self.part.bytes) if self.part.role == "frontend" else self.weights * weight

    @property
    def wide(self) -> bool:
        """Whether it lies in the folder in float32."""
        return self.part.bytes > 3 * self.weights


def to_audio_part(part: Part) -> AudioPart:
    """An encoder, bridge or front end."""
    return AudioPart(part, weights(part))


def weights(part: Part) -> int:
    """How many weights a part has, as the exporter counted them.

    Raises:
        BadArtifacts: the manifest has no count; alm-edge before the count was written made it.
    """
    count = part.measured.get("weights")
    if type(count) is not int or count < 0:
        raise BadArtifacts(
            f"the manifest does not say how many weights part {part.name} has; export it again "
            "with this version of alm-edge"
        )
    return count


def idle_weights(part: Part) -> int:
    """How many weights of a decoder's layers its graph does not read for one token: of experts.

    Raises:
        BadArtifacts: more are read than there are, or it is no count.
    """
    count = weights(part)
    active = part.measured.get("active_weights", count)
    if type(active) is not int or not 0 < active <= count:
        raise BadArtifacts(
            f"the manifest says that a token reads {active!r:.40} of the {count} weights of part "
            f"{part.name}"
        )
    return count - active


def decoder_weights(part: Part, dimensions: DimensionFacts) -> tuple[int, int]:
    """Weights of a decoder's layers, and of its head.

    Raises:
        BadArtifacts: they are not in the manifest, or are fewer than the head alone has.
    """
    hidden, vocab = dimensions.hidden, dimensions.vocab
    head = hidden * vocab
    layers = weights(part) - head
    if layers <= 0:
        raise BadArtifacts(
            f"part {part.name} has {head + layers} weights, too few for a head of "
            f"{hidden} x {vocab}"
        )
    return layers, head


def cache(decoder: Part, positions: int, dtype: str = "") -> int:
    """Bytes of the KV cache of one row, in its own or another dtype."""
    ports = {
        name: Port(dtype or port.dtype, port.axes)
        for name, port in decoder.inputs.items()
        if is_carried(name)
    }
    return cache_bytes(replace(decoder, inputs=ports), positions)


def cache_dtype(decoder: Part) -> str:
    """How the cache is stored."""
    dtypes = (p.dtype for name, p in decoder.inputs.items() if is_carried(name))
    return next(dtypes, np.dtype("float16").name)


# --- how much there is to do


def sizes(manifest: Manifest, seconds: float) -> dict[str, int]:
    """The dynamic axes of the parts before the decoder for a clip, at most a window of it.

    A span is as long as the longest that is heard at once, but of an axis that is heard piece by
    piece it is a piece: such frames are counted by their samples, rows of embeddings by what is
    known of a window. `windows` says how often a part of one fixed size is run.
    """
    samples = _samples(manifest, seconds)
    window = manifest.facts.audio.window_samples
    by_axis = {"batch": 1}
    for part in manifest.parts:
        for axis, span in part.spans.items():
            if part.role != "decoder" and axis not in pieces(part):
                size = max(span.least, span.most * samples // window)
                by_axis[axis] = max(by_axis.get(axis, 0), size)
    heard = samples + _silences(manifest)
    ports = [p for part in manifest.parts if part.role == "frontend" for p in part.outputs.values()]
    for axis in (axis for port in ports for axis in port.axes):
        if isinstance(axis, str) and axis.isidentifier():
            by_axis.setdefault(axis, max(heard // HOP, 1))
    tokens, axis = manifest.facts.dimensions.audio_tokens, _embeddings(manifest)
    windows = 1
    if tokens and isinstance(axis, int):
        windows = max(1, math.ceil(samples * tokens / (axis * window)))
    elif tokens and isinstance(axis, str) and axis.isidentifier():
        by_axis.setdefault(axis, math.ceil(tokens * heard / window))
    return by_axis | {"samples": heard, WINDOWS: windows}


def pieces(part: Part) -> Mapping[str, int]:
    """The axes whose spans are those of a piece, with the longest piece."""
    streamed = any(map(is_carried, part.inputs))
    return {axis: span.most for axis, span in part.spans.items() if streamed or axis == part.pieces}


def runs(part: Part, sizes: Mapping[str, int]) -> int:
    """How often a part is run about a clip: once a piece, once a window of fixed size, or once."""
    if _fixed(part):
        return sizes.get(WINDOWS, 1)
    counts = (-(-sizes.get(axis, 1) // most) for axis, most in pieces(part).items())
    return max(counts, default=1)


def _samples(manifest: Manifest, seconds: float) -> int:
    rules = manifest.facts.audio
    return min(max(round(seconds * rules.rate), rules.least_samples), rules.window_samples)


def _silences(manifest: Manifest) -> int:
    """Samples of silence around a clip, where a model of streams is given some."""
    live = manifest.facts.live
    return (live.left + live.delay + live.right) * live.step_samples


def _embeddings(manifest: Manifest) -> int | str | None:
    """The axis of a clip's embeddings, as the part that makes them says it."""
    ports = (part.outputs.get("audio_embeds") for part in manifest.parts)
    return next((port.axes[1] for port in ports if port and len(port.axes) > 2), None)


def rows(part: Part, sizes: Mapping[str, int]) -> int:
    """How many rows a part's products have.

    Of an encoder those of its output; of a front end its frames, which may be the last axis; of a
    bridge those of its longest input or output, an upper bound where it makes few rows of many.
    """
    shapes = [_shape(port, sizes) for name, port in part.outputs.items() if _heard(name)]
    if part.role == "frontend":
        return max((max(shape, default=1) for shape in shapes), default=1)
    if part.role != "encoder":
        shapes += [_shape(port, sizes) for name, port in part.inputs.items() if _heard(name)]
    most = max((math.prod(shape[:-1]) for shape in shapes), default=1)
    return most * (runs(part, sizes) if _fixed(part) else 1)


def _fixed(part: Part) -> bool:
    """Whether a part takes a window of one size."""
    axes = [a for n, port in part.inputs.items() if _heard(n) for a in port.axes[1:]]
    return bool(axes) and all(isinstance(axis, int) for axis in axes)


def _heard(name: str) -> bool:
    """Whether a tensor is no state that is carried from piece to piece, and no adapter's."""
    return not (is_carried(name) or taken_as(name) or is_slot(name))


def operations(audio_part: AudioPart, sizes: Mapping[str, int]) -> float:
    """Additions and multiplications of a part for one clip.

    2 * weights * rows; an encoder's attention adds 4 * rows * width a layer for each row that a
    row sees, and a layer of a transformer has 12 * width^2 weights. Rows see those of their piece
    or window, and of a state the positions that it keeps.
    """
    long = rows(audio_part.part, sizes)
    products = 2.0 * audio_part.weights * long
    if audio_part.part.role != "encoder":
        return products
    width = max(
        (
            _shape(port, sizes)[-1]
            for name, port in audio_part.part.outputs.items()
            if len(port.axes) > 2 and _heard(name)
        ),
        default=0,
    )
    seen = long / runs(audio_part.part, sizes) + _kept(audio_part.part)
    return products + (long * seen * audio_part.weights / (3 * width) if width else 0)


def _kept(part: Part) -> int:
    """Positions of keys that a part's state keeps; 0 without any."""
    keys = (port for name, port in part.inputs.items() if _is_key(name))
    return max((port.axes[-2] for port in keys if isinstance(port.axes[-2], int)), default=0)


def _is_key(name: str) -> bool:
    return is_carried(name) and name.endswith(".key")


def _shape(port: Port, sizes: Mapping[str, int]) -> list[int]:
    other = max(sizes["samples"] // SAMPLES, 1)
    shape = [flops.size(axis, sizes) for axis in port.axes]
    return [other if size is None else size for size in shape]


def prompt_tokens(manifest: Manifest, seconds: float) -> tuple[int, int]:
    """Tokens of a prompt about a window of audio: those of the audio, and all; words are guessed.

    No tokenizer is opened: a token of English has about four letters.
    """
    audio, axis = manifest.facts.dimensions.audio_tokens, _embeddings(manifest)
    if audio is None:
        ports = (part.outputs.get("audio_embeds") for part in manifest.parts)
        by_axis = sizes(manifest, seconds)
        audio = max(
            (_shape(port, by_axis)[1] for port in ports if port and len(port.axes) > 2), default=0
        )
    elif isinstance(axis, str) or any("audio_embeds_lengths" in p.outputs for p in manifest.parts):
        share = _samples(manifest, seconds) / manifest.facts.audio.window_samples
        audio = math.ceil(audio * share)
    elif axis:
        audio = axis * sizes(manifest, seconds)[WINDOWS]
    prompt, tasks = manifest.facts.prompt, manifest.facts.prompt.tasks
    longest = max(tasks.values(), key=len, default="")
    words = prompt.start + prompt.turn + prompt.clip + tasks.get(TASK, longest)
    for place in (prompt.placeholder, "{clips}", "{}", "{n}"):
        words = words.replace(place, "")
    return audio, audio + 1 + -(-len(words) // LETTERS)
