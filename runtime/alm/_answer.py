"""What the model said, and what is said about it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from alm import audio, decoding


@dataclass(frozen=True)
class Answer:
    """What the model said to one clip.

    A clip longer than the model's window is answered window by window: `token_ids` are then those
    of all windows, `text` is joined, and `windows` counts them.
    """

    text: str
    token_ids: list[int]
    stop_reason: str  # eos, stop_string, length (of what was asked for) or context (of the model)
    audio_seconds: float
    audio_tokens: int
    prompt_tokens: int
    windows: int
    provider: str
    timings_ms: dict[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    audio_cached: int = 0  # windows heard before, whose encoders were not run again

    def to_json(self) -> dict[str, Any]:
        """The answer as plain data."""
        return dataclasses.asdict(self)


@dataclass(frozen=True)
class Said:
    """What was said to one window."""

    clip: int
    sequence: decoding.Sequence
    text: str
    prompt_tokens: int
    audio_tokens: int
    audio_cached: bool
    stop_reason: str


def join(
    clip: audio.Clip,
    said: Sequence[Said],
    separator: str,
    notes: Sequence[str],
    provider: str,
    timings_ms: dict[str, float],
) -> Answer:
    """The answer to a clip from what was said to each of its windows, in their order."""
    parts = [each.text.strip() for each in said]
    return Answer(
        text=separator.join(part for part in parts if part),
        token_ids=[int(i) for each in said for i in each.sequence.token_ids],
        stop_reason=said[-1].stop_reason,
        audio_seconds=round(clip.seconds, 4),
        audio_tokens=sum(each.audio_tokens for each in said),
        prompt_tokens=sum(each.prompt_tokens for each in said),
        windows=len(said),
        provider=provider,
        timings_ms=timings_ms,
        notes=tuple(notes),
        audio_cached=sum(each.audio_cached for each in said),
    )


def notes(clip: audio.Clip, rules: Mapping[str, Any], truncated: bool) -> list[str]:
    """What was done to a clip that is too short or too long for the manifest's `audio` rules."""
    found: list[str] = []
    if clip.seconds * rules["rate"] < rules["least_samples"]:
        least = rules["least_samples"] / rules["rate"]
        found.append(f"{clip.seconds:.3g} s of audio were padded with silence to {least:g} s")
    window = rules["window_samples"] / rules["rate"]
    if truncated and clip.seconds > window:
        found.append(f"only the first {window:g} s of {clip.seconds:.1f} s were heard")
    return found
