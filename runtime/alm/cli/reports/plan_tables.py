"""What `alm plan` found, for people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from alm.cli import terminal

OWN = "*"  # marks the precision that lies in the folder


def show(plan: Mapping[str, Any]) -> None:
    """Print it all to stdout."""
    table = terminal.printer()
    table("", "|", _about(plan))
    clips = [f"{clip['seconds']:g} s" for clip in plan["choices"][0]["clips"]]
    table(
        f"memory, {OWN} is what lies in the folder",
        "decoder|encoders|>weights|>KV/s|>at load|>at run|fits|",
        _memory(plan),
    )
    table(
        "predicted speed, with error bars; first token in ms",
        "decoder|>tokens/s|" + "".join(f">first, {clip}|" for clip in clips),
        _speed(plan),
    )
    heads = "".join(f">{clip}|" for clip in clips)
    table("before the decoder, predicted, ms", f"part|>weights|>GFLOP|{heads}", _parts(plan))
    print()
    for note in plan["notes"]:
        print(f"note: {note}")


def _about(plan: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    device, model = plan["device"], plan["model"]
    size = terminal.size
    yield "device", f"{device['title']}; {size(int(device['usable']))} for a program"
    yield "engines", f"TensorRT, exported with --target {' or '.join(device['targets'])}"
    yield "predicted from", device["source"]
    decoder, others = model["decoder_weights"] / 1e6, model["other_weights"] / 1e6
    yield (
        "model",
        f"{model['folder']}: {model['family']}, decoder {decoder:.1f} million weights, "
        f"all before it {others:.1f}",
    )
    yield (
        "prompt",
        f"about {model['prompt_tokens']} tokens, {model['audio_tokens']} of them for a window of "
        f"{model['window_seconds']:g} s of audio",
    )
    yield (
        "KV cache",
        f"{size(model['cache_per_token'])} a token and {size(int(model['cache_per_second']))} a "
        f"second of audio (KV/s) in float16; {model['context']} tokens are counted",
    )


def _memory(plan: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    for row in plan["choices"]:
        sizes = (
            *(row[name] for name in ("weights", "cache_per_second", "load")),
            row["run"]["value"],
        )
        cells = (terminal.size(int(count)) for count in sizes)
        yield _name(row), row["encoders"], *cells, row["fits"], ""


def _speed(plan: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    for row in plan["choices"]:
        cells = [row["tokens_per_second"], *(clip["first_token"] for clip in row["clips"])]
        yield _name(row), *(_bar(cell) if row["buildable"] else "-" for cell in cells), ""


def _name(row: Mapping[str, Any]) -> str:
    return f"{row['precision']} {OWN}" if row["own"] else row["precision"]


def _parts(plan: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    for row in plan["parts"]:
        most = max(clip["operations"] for clip in row["clips"])
        times = (_bar(clip["ms"]) for clip in row["clips"])
        yield row["part"], f"{row['weights'] / 1e6:.1f} M", f"{most / 1e9:.1f}", *times, ""


def _bar(value: Mapping[str, float]) -> str:
    """64 (61-67)."""
    middle, least, most = (value[name] for name in ("value", "least", "most"))
    digits = 0 if middle >= 10 else 1 if middle >= 1 else 2
    return f"{middle:.{digits}f} ({least:.{digits}f}-{most:.{digits}f})"
