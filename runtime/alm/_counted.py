"""What a manifest alone tells of a model: weights, rows, operations, cache. No graph is opened."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from alm import _work
from alm._roofline import cache_bytes
from alm.errors import BadArtifacts
from alm.manifest import Manifest, Part
from alm.ports import CACHE_IN, Port

TASK = "transcribe"
LETTERS = 4  # of a prompt in a token, in English
SAMPLES = 320  # of audio in a row of Whisper's or BEATs', where no span says how many there are
CACHE_LEVER = "kv8"  # says how the cache is stored, not the weights


@dataclass(frozen=True)
class Stored:
    """Bytes of a weight of a decoder."""

    layers: float
    head: float
    down: float = 0.0  # of the layers' last product, a third of the wide middle; 0: as `layers`


def _blocks(bits: int, block: int, scale_bits: int = 32, zero: bool = True) -> float:
    """Bytes of a weight in blocks, each with a scale and perhaps a zero point."""
    return (bits + (scale_bits + bits * zero) / block) / 8


INT8, INT4, INT4_FINE = _blocks(8, 128), _blocks(4, 256), _blocks(4, 32)
INT4_TRT = _blocks(4, 128, scale_bits=16, zero=False)
# By lever; `int4head16` is what TensorRT Edge-LLM's figures are of, and no lever makes it.
DECODER = {
    "fp32": Stored(4, 4),
    "fp16": Stored(2, 2),
    "bf16": Stored(2, 2),
    "int8": Stored(INT8, INT8),
    "int4head16": Stored(INT4, 2),
    "int4head8": Stored(INT4, INT8),
    "int4": Stored(INT4, INT4),
    "int4mixed": Stored(INT4_FINE, INT8, INT8),
    "int8dq": Stored(1, 1),  # one scale an output
    "int4dq": Stored(INT4_TRT, 1),
}


@dataclass(frozen=True)
class Heard:
    """A part before the decoder: how much there is of it, and how it is stored."""

    part: Part
    weights: float
    precision: str  # fp32, fp16, bf16 or int8

    def bytes_as(self, precision: str) -> float:
        """Its bytes in another precision; front ends stay as they are."""
        if self.part.role == "frontend":
            return float(self.part.bytes)
        return self.weights * DECODER[precision].head


def lever(precision: str) -> str:
    """The lever that stores the weights: int4 of int4+kv8 and of bf16+int4, fp32 of kv8."""
    names = [name for name in precision.split("+") if name and name != CACHE_LEVER]
    integers = [name for name in names if name.startswith("int")]
    return (integers or names or ["fp32"])[0]


def stored(precision: str) -> Stored | None:
    """How a precision stores a decoder; a lever nobody told us of as the one its name begins with.

    None where there is none.
    """
    name = lever(precision)
    alike = max((known for known in DECODER if name.startswith(known)), key=len, default="")
    return DECODER.get(alike)


def heard(part: Part) -> Heard:
    """An encoder, bridge or front end, its weights counted from its bytes."""
    name = lever(part.precision)
    if part.role == "frontend":
        name = "fp32"  # whatever the lever: see the levers' LEAVES_ALONE
    elif name.startswith("int"):
        name = "int8"  # every lever of integers stores these parts so
    each = {"fp32": 4, "int8": 1}.get(name, 2)
    return Heard(part, part.bytes / each, name)


def decoder_weights(part: Part, dimensions: Mapping[str, Any]) -> tuple[float, float]:
    """Weights of a decoder's layers, and of its head, from its bytes and its precision.

    Raises:
        BadArtifacts: nothing is known of its precision, or there are fewer bytes than its head has.
    """
    kind = stored(part.precision)
    if kind is None:
        raise BadArtifacts(
            f"how many bytes a weight of precision {part.precision!r:.80} has is not known; "
            f"known are: {', '.join(DECODER)}"
        )
    hidden, vocab = (dimensions[n] for n in ("hidden", "vocab"))
    head = hidden * vocab
    left, layers = part.bytes - head * kind.head, 0.0
    if kind.down:
        attention = _attention(dimensions)
        wide = left - attention * kind.layers
        layers = attention + wide / ((2 * kind.layers + kind.down) / 3)
    else:
        layers = left / kind.layers
    if layers <= 0:
        raise BadArtifacts(
            f"part {part.name} has {part.bytes} bytes, too few for a head of "
            f"{hidden} x {vocab} weights in {part.precision}"
        )
    return layers, float(head)


def _attention(dimensions: Mapping[str, Any]) -> int:
    layers, heads, kv_heads, wide, hidden = (
        value if isinstance(value := dimensions.get(name), int) else 0
        for name in ("layers", "heads", "kv_heads", "head_dim", "hidden")
    )
    return layers * 2 * hidden * wide * (heads + kv_heads)


def cache(decoder: Part, positions: int, dtype: str = "") -> int:
    """Bytes of the KV cache of one row, in its own or another dtype."""
    ports = {
        name: Port(dtype or port.dtype, port.axes)
        for name, port in decoder.inputs.items()
        if name.startswith(CACHE_IN)
    }
    return cache_bytes(replace(decoder, inputs=ports), positions)


def cache_dtype(decoder: Part) -> str:
    """How the cache is stored."""
    found = (p.dtype for name, p in decoder.inputs.items() if name.startswith(CACHE_IN))
    return next(found, np.dtype("float16").name)


# --- how much there is to do


def sizes(said: Manifest, seconds: float) -> dict[str, int]:
    """The dynamic axes of the parts before the decoder for a clip, at most a window of it."""
    rules = said.audio
    window = int(rules["window_samples"])
    samples = min(max(round(seconds * rules["rate"]), rules["least_samples"]), window)
    found = {"batch": 1}
    for part in said.parts:
        if part.role != "decoder":
            for axis, span in part.spans.items():
                size = max(span.least, span.most * samples // window)
                found[axis] = max(found.get(axis, 0), size)
    return found | {"samples": samples}


def rows(part: Part, sizes: Mapping[str, int]) -> int:
    """How many rows a part's products have.

    Of an encoder those of its output; of a front end its frames, which may be the last axis; of a
    bridge those of its longest input or output, an upper bound where it makes few rows of many.
    """
    made = [_shape(port, sizes) for port in part.outputs.values()]
    if part.role == "frontend":
        return max((max(shape, default=1) for shape in made), default=1)
    if part.role != "encoder":
        made += [_shape(port, sizes) for port in part.inputs.values()]
    return max((math.prod(shape[:-1]) for shape in made), default=1)


def operations(each: Heard, sizes: Mapping[str, int]) -> float:
    """Additions and multiplications of a part for one clip.

    2 * weights * rows; an encoder's attention adds 4 * rows^2 * width a layer, and a layer of a
    transformer has 12 * width^2 weights.
    """
    long = rows(each.part, sizes)
    products = 2.0 * each.weights * long
    if each.part.role != "encoder":
        return products
    width = max(
        (_shape(p, sizes)[-1] for p in each.part.outputs.values() if len(p.axes) > 2), default=0
    )
    return products + (long**2 * each.weights / (3 * width) if width else 0)


def _shape(port: Port, sizes: Mapping[str, int]) -> list[int]:
    other = max(sizes["samples"] // SAMPLES, 1)
    found = [_work.size(axis, sizes) for axis in port.axes]
    return [other if size is None else size for size in found]


def prompt_tokens(said: Manifest, seconds: float) -> tuple[int, int]:
    """Tokens of a prompt about a window of audio: those of the audio, and all; words are guessed.

    No tokenizer is opened: a token of English has about four letters.
    """
    audio = said.dimensions.get("audio_tokens")
    if not isinstance(audio, int):
        ports = (part.outputs.get("audio_embeds") for part in said.parts)
        made = sizes(said, seconds)
        audio = max(
            (_shape(port, made)[1] for port in ports if port and len(port.axes) > 2), default=0
        )
    prompt, tasks = said.prompt, said.prompt["tasks"]
    longest = max(tasks.values(), key=len, default="")
    words = prompt.get("start", "") + prompt["turn"] + prompt["clip"] + tasks.get(TASK, longest)
    for place in (prompt["placeholder"], "{clips}", "{}", "{n}"):
        words = words.replace(place, "")
    return audio, audio + 1 + -(-len(words) // LETTERS)
