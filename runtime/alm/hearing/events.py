"""What happens while somebody is listened to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol


class Said(Protocol):
    """A model's answer to an utterance."""

    @property
    def text(self) -> str: ...


@dataclass(frozen=True)
class Event:
    """Something about one utterance; `number` counts from 0, times are seconds of the stream."""

    number: int
    start: float

    def to_json(self) -> dict[str, Any]:
        """Plain data, its kind among it."""
        plain: dict[str, Any] = {"event": type(self).__name__.lower(), "utterance": self.number}
        for name, value in vars(self).items():
            if name not in ("number", "answer"):
                plain[name] = round(value, 3) if isinstance(value, float) else value
        return plain


@dataclass(frozen=True)
class Started(Event):
    """Somebody speaks."""


@dataclass(frozen=True)
class Stopped(Event):
    """The utterance has ended, and its text will follow."""

    end: float


@dataclass(frozen=True)
class Partial(Event):
    """The text of an utterance that goes on, heard up to `end`.

    `certain` is the beginning of `text` that no later partial changes. `latency` is the seconds
    from the moment when the sound at `end` had come.
    """

    end: float
    text: str
    certain: str
    latency: float


@dataclass(frozen=True)
class Final(Event):
    """The text of an utterance that has ended, as the model answers it alone.

    `latency` is the seconds from the moment when the sound at `end` had come: what was waited for
    until it was certain that nobody speaks on, and what the model took longer than that.
    """

    end: float
    text: str
    latency: float
    answer: Said  # the model's, with all that was measured

    def to_json(self) -> dict[str, Any]:
        """See `Event`; what is odd about the answer is told, where anything is."""
        notes = list(getattr(self.answer, "notes", ()))
        return super().to_json() | ({"notes": notes} if notes else {})
