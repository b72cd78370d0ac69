"""What the manifest's plain objects may hold: kinds and limits of every field that is used.

Checked once when the manifest is loaded, so that whoever takes a field afterwards can rely on it. A
part alone needs few of them; `check_run_fields` is for a model that is to run.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from alm.onnxfile.summary import BITS, DTYPES, TYPES
from alm.parsing import Misshapen, all_of, count, is_a, need
from alm.ports import CACHE_IN, CACHE_OUT, Port

# Sizes are limited before anything of that size is made.
MOST_RATE = 768_000  # hertz; the highest of any converter
MOST_SAMPLES = 2**26  # of a window: 70 minutes at 16 kHz, 256 MiB of float32
MOST_HIDDEN = 2**18  # columns; the largest models have 2**14
MOST_VOCAB = 2**24
MOST_CONTEXT = 2**24  # positions
MOST_AXIS = 2**40  # of a port, or of a span
MOST_AXES = 16
MOST_PORT = 2**34  # bytes of a port whose dynamic axes are 1: a cache of one row and layer
KINDS = frozenset(DTYPES[1:]) | frozenset(TYPES.values())

AUDIO = {
    "rate": (1, MOST_RATE),
    "least_samples": (1, MOST_SAMPLES),
    "window_samples": (1, MOST_SAMPLES),
}
DIMENSIONS = {
    "hidden": (1, MOST_HIDDEN),
    "vocab": (1, MOST_VOCAB),
    "context": (1, MOST_CONTEXT),
    "table": (1, MOST_VOCAB),
    "layers": (0, 10_000),
    "heads": (0, 100_000),
    "kv_heads": (0, 100_000),
    "head_dim": (0, 100_000),
    "audio_tokens": (0, MOST_CONTEXT),
}
CACHE_AXES = ({"past"}, {"capacity"})
CACHE_KINDS = ("float32", "float16", "int8", "uint8", "float64")
MOST_TOKENS = 4096  # that end an answer


def check_fields(plain: Mapping[str, Any]) -> None:
    """Refuse, with Misshapen, a field of another kind or size than it may have; all may be absent.

    Args:
        plain: the manifest as JSON gave it.
    """
    prompt, tokens, audio, dimensions = (
        need(plain, name, dict) for name in ("prompt", "tokens", "audio", "dimensions")
    )
    for name in ("turn", "clip", "placeholder", "start", "end"):
        if name in prompt:
            need(prompt, name, str, where="'prompt'")
    for name in ("tasks", "turns"):
        if name in prompt:
            texts = need(prompt, name, dict, where="'prompt'")
            all_of(list(texts.values()), str, name)
    if "joined" in prompt:
        all_of(prompt["joined"], str, "joined")
    if not isinstance(literal := prompt.get("literal", False), bool):
        raise Misshapen(f"'literal' of 'prompt' is {literal!r:.80}, neither true nor false")
    if (trim := prompt.get("trim", "")) not in ("", "words", "parts", "content"):
        raise Misshapen(f"'trim' of 'prompt' is {trim!r:.80}, not words, parts or content")
    _tokens(tokens)
    for said, bounds, where in ((audio, AUDIO, "audio"), (dimensions, DIMENSIONS, "dimensions")):
        for name, (least, most) in bounds.items():
            if name in said and said[name] is not None:
                count(said, name, least, where=f"{where!r}", most=most)
    for name in ("channel", "long"):
        if name in audio:
            need(audio, name, str, where="'audio'")


def _tokens(tokens: Mapping[str, Any]) -> None:
    if tokens.get("bos") is not None:
        count(tokens, "bos", 0, where="'tokens'", most=MOST_VOCAB)
    if "eos" in tokens:
        need(tokens, "eos", list, where="'tokens'")
        all_of(tokens["eos"], int, "eos")
        if not all(0 <= token < MOST_VOCAB for token in tokens["eos"]):
            raise Misshapen(f"'eos' of 'tokens' is out of range: {tokens['eos']!r:.80}")
    if "stop_strings" in tokens:
        all_of(tokens["stop_strings"], str, "stop_strings")
    for name in ("eos", "stop_strings"):
        if len(tokens.get(name, ())) > MOST_TOKENS:
            raise Misshapen(f"{name!r} of 'tokens' has more than {MOST_TOKENS} entries")
    if not isinstance(penalized := tokens.get("penalize_prompt", False), bool):
        raise Misshapen(
            f"'penalize_prompt' of 'tokens' is {penalized!r:.80}, neither true nor false"
        )


def check_run_fields(
    prompt: Mapping[str, Any],
    tokens: Mapping[str, Any],
    audio: Mapping[str, Any],
    dimensions: Mapping[str, Any],
) -> None:
    """Refuse, with Misshapen, a manifest that lacks a field which a run needs."""
    for name in ("turn", "clip", "placeholder"):
        need(prompt, name, str, where="'prompt'")
    need(prompt, "tasks", dict, where="'prompt'")
    need(tokens, "eos", list, where="'tokens'")
    need(audio, "channel", str, where="'audio'")
    for name in ("rate", "least_samples", "window_samples"):
        need(audio, name, int, where="'audio'")
    for name in ("hidden", "vocab", "context"):
        need(dimensions, name, int, where="'dimensions'")
    vocab = dimensions["vocab"]
    count(dimensions, "table", vocab, vocab, "'dimensions'")


def check_decoder(inputs: Mapping[str, Port], outputs: Mapping[str, Port], where: str) -> None:
    """Refuse, with Misshapen, a decoder that cannot be fed: its cache's axes have other names."""
    for name, sides in (("inputs_embeds", inputs), ("logits", outputs)):
        if name not in sides:
            raise Misshapen(f"{where} lacks {name!r}")
    for name, port in inputs.items():
        if not name.startswith(CACHE_IN):
            continue
        said, named = f"'axes' of {name:.80} of {where} are {list(port.axes)!r:.80}", set(port.axes)
        if port.axes[:1] not in (("batch",), (1,)) or len(port.axes) < 2:
            raise Misshapen(f"{said}, and the first must be 'batch' or 1")
        if named - {"batch"} - {a for a in named if isinstance(a, int)} not in CACHE_AXES:
            raise Misshapen(f"{said}, and besides there must be one of 'past' and 'capacity'")
        if CACHE_OUT + name[len(CACHE_IN) :] not in outputs:
            raise Misshapen(
                f"{where} gives no {CACHE_OUT + name[len(CACHE_IN) :]:.80} for {name:.80}"
            )
        kinds = ("int64",) if name == f"{CACHE_IN}positions" else CACHE_KINDS
        if port.dtype not in kinds:
            raise Misshapen(f"'dtype' of {name:.80} of {where} is {port.dtype!r}, no cache's")


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
