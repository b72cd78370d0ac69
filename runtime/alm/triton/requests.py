"""A request of Triton's as a question: whatever a client sent, it is that or one clear sentence."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from alm.audio.reader import HOUR
from alm.errors import BadAudio, BadOption, BadPrompt, UnknownName
from alm.generation.keywords import Generating
from alm.parsing import Misshapen, parse
from alm.text.tasks import near
from alm.triton.python_config import FILE, OPTIONS, PCM, PROMPT, RATE, STREAM

Source = np.ndarray | tuple[np.ndarray, int] | bytes
Tensors = Callable[
    [str], np.ndarray | None
]  # an input's array by its name, None where it is absent

NAMES = sorted(Generating.__annotations__)
KINDS: dict[str, type] = dict.fromkeys(("language", "hypothesis"), str)
KINDS |= dict.fromkeys(("truncate", "verbatim", "show_thinking"), bool)
KIND_WORDS = {str: "text", bool: "true or false"}
INLINE = b"data:"  # begins a file in JSON, which cannot hold bytes: data:audio/wav;base64,...


@dataclass(frozen=True)
class Asked:
    """A prompt about a clip; `options` are keywords of `alm.Model.generate`."""

    source: Source
    prompt: str
    options: dict[str, Any] = field(default_factory=dict)
    stream: bool = False

    @property
    def company(self) -> str:
        """Questions of which this is the same may be answered in one batch."""
        return json.dumps(self.options, sort_keys=True)


def asked(tensors: Tensors, adapters: Collection[str], most_seconds: float = HOUR) -> Asked:
    """The question of a request, whose arrays are copied: Triton takes them back.

    Args:
        tensors: each [1, n], a batch of one. `pcm` float32 [1, samples] with `rate` int32 [1, 1],
            or `file`, the bytes of one; `prompt`; `options`, a JSON object; `stream`.
        adapters: names of those that a client may ask for.
        most_seconds: of audio that a client may send.

    Raises:
        BadAudio, BadPrompt, BadOption, UnknownName: one sentence says what is wrong.
    """
    prompt = _text(tensors, PROMPT)
    if prompt is None:
        raise BadPrompt(f"the request has no {PROMPT!r}: what to do, or a task's name")
    stream = _one(tensors, STREAM)
    options = _options(_text(tensors, OPTIONS) or "{}", adapters, most_seconds)
    return Asked(_source(tensors), prompt, options, bool(stream))


def _source(tensors: Tensors) -> Source:
    pcm, file, rate = tensors(PCM), _one(tensors, FILE), _one(tensors, RATE)
    if (pcm is None) == (file is None):
        what = "neither" if file is None else "both"
        raise BadAudio(f"the request has {what} of {PCM!r} and {FILE!r}; wanted one of them")
    if file is not None:
        if rate is not None:
            raise BadAudio(f"{RATE!r} belongs to {PCM!r}; a {FILE!r} says its own")
        return _bytes(file)
    assert pcm is not None
    if pcm.ndim != 2 or len(pcm) != 1:
        raise BadAudio(
            f"{PCM!r} is {list(pcm.shape)}, wanted [1, samples]: a request asks about one clip, "
            "and the server batches requests"
        )
    samples = np.array(pcm[0], np.float32)
    return samples if rate is None else (samples, int(rate))


def _bytes(content: bytes) -> bytes:
    """A file as it is, or as the data of a URL."""
    if not content.startswith(INLINE):
        return content
    head, comma, data = content.partition(b",")
    if not comma or not head.endswith(b";base64"):
        raise BadAudio(f"{FILE!r} is a data URL without ';base64,'")
    try:
        return base64.b64decode(data, validate=True)
    except binascii.Error as error:
        raise BadAudio(f"{FILE!r} is a data URL whose base64 is broken: {error}") from None


def _options(text: str, adapters: Collection[str], most_seconds: float) -> dict[str, Any]:
    try:
        options = parse(text)
    except (ValueError, RecursionError) as error:
        why = error if isinstance(error, Misshapen) else "it is no JSON"
        raise BadOption(f"{OPTIONS!r} is {text!r:.80}, wanted a JSON object: {why}") from None
    if not isinstance(options, dict):
        raise BadOption(f"{OPTIONS!r} is {text!r:.80}, wanted a JSON object")
    for name in options:
        if name not in NAMES:
            nearest = near(name, NAMES)
            meant = f"; did you mean {nearest[0]}?" if nearest else ""
            raise BadOption(f"unknown option {name!r:.80}{meant}")
        kind = KINDS.get(name, object)
        if not isinstance(options[name], kind):
            raise BadOption(f"{name} is {options[name]!r:.40}, wanted {KIND_WORDS[kind]}")
    seconds = options.get("max_audio_seconds", most_seconds)
    if not isinstance(seconds, int | float) or not 0 < seconds <= most_seconds:
        raise BadOption(f"max_audio_seconds is {seconds!r:.40}, at most {most_seconds:g} here")
    # A client chooses among the adapters of the model: a path would be one of the server's.
    adapter = options.get("adapter", "")
    if adapter and (not isinstance(adapter, str) or adapter not in adapters):
        there = ", ".join(sorted(adapters)) or "none"
        raise UnknownName(f"unknown adapter {adapter!r:.80}; there is: {there}")
    return options | {"max_audio_seconds": float(seconds)}


def _text(tensors: Tensors, name: str) -> str | None:
    value = _one(tensors, name)
    if value is None:
        return None
    try:
        return value if isinstance(value, str) else bytes(value).decode("utf-8")
    except (UnicodeDecodeError, TypeError):
        raise BadPrompt(f"{name!r} is no text in UTF-8") from None


def _one(tensors: Tensors, name: str) -> Any:
    """The only element of an input; None where it is absent."""
    array = tensors(name)
    if array is None:
        return None
    if array.size != 1:
        raise BadOption(
            f"{name!r} is {list(array.shape)}, wanted [1, 1]: a request asks one question, and the "
            "server batches requests"
        )
    return array.reshape(-1)[0]
