"""What the model said, and what is said about it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from alm import audio, decoding


@dataclass(frozen=True)
class Answer:
    """What the model said to one prompt.

    A clip longer than the model's window is answered window by window, unless the model hears its
    windows as one: `token_ids` are then those of all windows, `text` is joined, and `windows`
    counts them.
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
    audio_cached: int = 0  # clips or windows heard before, whose encoders were not run again
    cached_tokens: int = 0  # of the prompt's, those that a turn before it left in the KV cache

    def to_json(self) -> dict[str, Any]:
        """The answer as plain data."""
        return dataclasses.asdict(self)


@dataclass(frozen=True)
class Said:
    """What was said to one prompt, or to one window of its clip."""

    asked: int
    sequence: decoding.Sequence
    text: str
    prompt_tokens: int
    audio_tokens: int
    audio_cached: int
    stop_reason: str
    cached_tokens: int = 0


def join(
    clips: Sequence[audio.Clip],
    said: Sequence[Said],
    separator: str,
    notes: Sequence[str],
    provider: str,
    timings_ms: dict[str, float],
) -> Answer:
    """The answer to a prompt about clips from what was said to each window, in their order."""
    parts = [each.text.strip() for each in said]
    return Answer(
        text=separator.join(part for part in parts if part),
        token_ids=[int(i) for each in said for i in each.sequence.token_ids],
        stop_reason=said[-1].stop_reason,
        audio_seconds=round(sum(clip.seconds for clip in clips), 4),
        audio_tokens=sum(each.audio_tokens for each in said),
        prompt_tokens=sum(each.prompt_tokens for each in said),
        windows=len(said),
        provider=provider,
        timings_ms=timings_ms,
        notes=tuple(notes),
        audio_cached=sum(each.audio_cached for each in said),
        cached_tokens=sum(each.cached_tokens for each in said),
    )


def reason(sequence: decoding.Sequence, cut: bool) -> str:
    """Why an answer stopped, where `cut` says that the context left less room than asked for."""
    return "context" if cut and sequence.stop_reason == "length" else sequence.stop_reason
