"""A model's answers, and the notes about them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from alm.audio import merging, reader
from alm.audio.clips import Piece
from alm.decoding import steps
from alm.facts import PromptFacts
from alm.joins import seams
from alm.text.prompt import Prompt
from alm.text.segments import Segment
from alm.text.tasks import transcribes
from alm.voice.gate import NO_SPEECH, Gate

# Reasons to stop that leave an answer unfinished.
CUT = {
    "length": "as many as were asked for; more: --max-new-tokens",
    "context": "where the model's context is full",
}


@dataclass(frozen=True)
class Question:
    """A prompt and the clips that it is about."""

    prompt: str
    sources: Sequence[reader.Source]


@dataclass(frozen=True)
class Answer:
    """The model's answer to one prompt.

    A clip longer than the model's window is answered window by window, unless the model takes its
    windows as one: `token_ids` are then those of all windows, `text` is joined, and `windows`
    counts them.
    """

    text: str
    token_ids: list[int]
    # eos, stop_string, grammar (nothing may follow), length (max_new_tokens cut it), context (the
    # model's did), audio (a stream has ended) or no_speech (nobody speaks, so nothing was asked and
    # the text is empty; `gate`); of several windows one that was cut, else the last that was asked
    # about
    stop_reason: str
    audio_seconds: float
    audio_tokens: int
    prompt_tokens: int
    windows: int
    provider: str
    timings_ms: dict[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    audio_cached: int = 0  # clips or windows remembered, whose encoders were not run again
    cached_tokens: int = 0  # of the prompt's, those that a turn before it left in the KV cache
    prefix_tokens: int = 0  # of the prompt's, those before its clips that are remembered
    audio_merged: int = (
        0  # embeddings that were averaged with their neighbours: not in audio_tokens
    )
    merge_cosine: float | None = None  # of the two least alike that were averaged
    drafted_tokens: int = 0  # that were guessed, and computed several at once
    accepted_tokens: int = 0  # of those, the ones that the model said too
    stop_reasons: tuple[str, ...] = ()  # of each window
    language: str = ""  # that the model heard or was told, where its answers name one
    # Of one clip alone: with an aligner sentences and their words, else those that the model names
    # with their speakers, else a window each.
    segments: tuple[Segment, ...] = ()
    thinking: str | None = None  # before the answer; None of models that mark no thoughts

    def to_json(self) -> dict[str, Any]:
        """The answer as plain data."""
        plain = dataclasses.asdict(self)
        return (
            plain if self.thinking is not None else {k: plain[k] for k in plain if k != "thinking"}
        )


@dataclass
class Row:
    """What is answered at once: a prompt and its clips, or one window of its only clip."""

    question: int  # its place in the turn
    prompt: Prompt
    pcms: list[np.ndarray]  # float32 [samples] of each clip
    piece: Piece | None = None  # of the only clip
    embeds: list[np.ndarray] = field(default_factory=list)  # float32 [n, hidden] of each
    cached: int = 0  # clips whose embeddings were remembered
    merged: int = 0  # embeddings that went into their neighbours
    cosine: float | None = None  # of the two least alike of those
    gated: bool = False  # nobody speaks: it is not asked

    def merge(self, percent: float) -> None:
        """Leave so many percent of each clip's embeddings."""
        if percent == merging.WHOLE:
            return
        pairs = [merging.merged(embeds, percent) for embeds in self.embeds]
        self.merged = sum(map(len, self.embeds)) - sum(len(embeds) for embeds, _ in pairs)
        self.embeds = [embeds for embeds, _ in pairs]
        self.cosine = min((cosine for _, cosine in pairs if cosine is not None), default=None)


@dataclass(frozen=True)
class WindowAnswer:
    """The answer to one prompt, or to one window of its clip."""

    question: int  # its place in the turn
    sequence: steps.Sequence
    text: str
    prompt_tokens: int
    audio_tokens: int
    audio_cached: int
    stop_reason: str
    cached_tokens: int = 0
    prefix_tokens: int = 0
    audio_merged: int = 0
    merge_cosine: float | None = None
    drafted_tokens: int = 0
    accepted_tokens: int = 0
    language: str = ""
    segments: tuple[Segment, ...] = ()
    thinking: str | None = None
    lacks: str = ""  # what it was to be and is not: JSON of the schema


def heard(rows: Sequence[Row], gate: Gate, facts: PromptFacts, verbatim: bool) -> list[Row]:
    """The rows that are asked; in the others nobody speaks."""
    for row in rows:
        sound = [row.piece.pcm[: row.piece.samples]] if row.piece else row.pcms
        row.gated = gate.closed(sound, transcribes(row.prompt.asked, facts, verbatim))
    return [row for row in rows if not row.gated]


def in_order(rows: Sequence[Row], asked: Sequence[WindowAnswer]) -> list[WindowAnswer]:
    """An answer to each row: empty for those that were gated, else the next of those asked.

    What windows that overlap both say is in the first of them alone.
    """
    following, none = iter(asked), steps.Sequence([], "eos")
    windows = [
        WindowAnswer(row.question, none, "", 0, 0, 0, NO_SPEECH) if row.gated else next(following)
        for row in rows
    ]
    overlaps = [bool(row.piece and row.piece.overlap) for row in rows]
    texts = seams.joined([window.text for window in windows], overlaps)
    return [replace(window, text=text) for window, text in zip(windows, texts, strict=True)]


def join(
    clips: Sequence[reader.Clip],
    windows: Sequence[WindowAnswer],
    separator: str,
    notes: Sequence[str],
    provider: str,
    timings_ms: dict[str, float],
) -> Answer:
    """The answer to a prompt about clips from the answers to its windows, in their order."""
    parts = [window.text.strip() for window in windows]
    thoughts = [window.thinking.strip() for window in windows if window.thinking is not None]
    reasons = [window.stop_reason for window in windows]
    cosines = [window.merge_cosine for window in windows if window.merge_cosine is not None]
    return Answer(
        text=separator.join(part for part in parts if part),
        token_ids=[int(i) for window in windows for i in window.sequence.token_ids],
        stop_reason=_whole(reasons),
        audio_seconds=round(sum(clip.seconds for clip in clips), 4),
        audio_tokens=sum(window.audio_tokens for window in windows),
        prompt_tokens=sum(window.prompt_tokens for window in windows),
        windows=len(windows),
        provider=provider,
        timings_ms=timings_ms,
        notes=(*notes, *_cut_notes(windows)),
        audio_cached=sum(window.audio_cached for window in windows),
        cached_tokens=sum(window.cached_tokens for window in windows),
        prefix_tokens=sum(window.prefix_tokens for window in windows),
        audio_merged=sum(window.audio_merged for window in windows),
        merge_cosine=min(cosines, default=None),
        drafted_tokens=sum(window.drafted_tokens for window in windows),
        accepted_tokens=sum(window.accepted_tokens for window in windows),
        stop_reasons=tuple(reasons),
        segments=tuple(segment for window in windows for segment in window.segments),
        language=next((window.language for window in windows if window.language), ""),
        thinking=separator.join(filter(None, thoughts)) if thoughts else None,
    )


def _whole(reasons: Sequence[str]) -> str:
    """Why an answer of several windows stopped."""
    asked = [reason for reason in reasons if reason != NO_SPEECH]
    return next((cut for cut in CUT if cut in reasons), asked[-1] if asked else NO_SPEECH)


def _cut_notes(windows: Sequence[WindowAnswer]) -> Iterator[str]:
    """Which answers are not whole, and what would make them so."""
    reasons = [window.stop_reason for window in windows]
    if gated := reasons.count(NO_SPEECH):
        part = f" in {gated} of {len(windows)} windows" if len(windows) > 1 else ""
        yield f"no speech was heard{part}, so nothing was asked there; to ask anyway: --no-gate"
    for cut, why in CUT.items():
        places = [i for i, window in enumerate(windows, 1) if window.stop_reason == cut]
        if not places:
            continue
        many = (
            f" to window {', '.join(map(str, places))} of {len(windows)}"
            if len(windows) > 1
            else ""
        )
        tokens = max(len(windows[i - 1].sequence.token_ids) for i in places)
        thought = all(windows[i - 1].thinking and not windows[i - 1].text.strip() for i in places)
        thinking = " while the model was thinking" if thought else ""
        lacks = next((f" and is not {w.lacks}" for w in windows if w.lacks), "")
        yield f"the answer{many} was cut after {tokens} tokens{thinking}{lacks}, {why}"


def reason(sequence: steps.Sequence, cut: str) -> str:
    """Why an answer stopped, where `cut` names what left less room than was asked for, if any."""
    return cut if cut and sequence.stop_reason == "length" else sequence.stop_reason


def separator(prompt: Prompt) -> str:
    return " " if prompt.joined else "\n"
