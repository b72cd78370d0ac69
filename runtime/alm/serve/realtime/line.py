"""A session's sound from one setup to the next: bytes in, OpenAI's events out."""

from __future__ import annotations

import base64
import binascii
import uuid
from collections.abc import Generator
from typing import Any

from alm.audio.streams import Bytes
from alm.errors import AlmError
from alm.generation.answers import Answer
from alm.hearing.events import Event, Final, Partial, Said, Started, Stopped
from alm.hearing.tasks import Task
from alm.serve.inside.asking import in_context, task_of, usage
from alm.serve.inside.server import Server
from alm.serve.realtime.setup import Setup
from alm.serve.refused import Refused, because

WAITING = 300.0  # seconds of speech that may wait, or that a commit may hold
EVERY = 0.4  # seconds of sound between two runs over an utterance that goes on, at least
TRANSCRIPTION = "conversation.item.input_audio_transcription"

Events = list[dict[str, Any]]


def new_id(kind: str) -> str:
    """An id as OpenAI's look."""
    return f"{kind}_{uuid.uuid4().hex[:20]}"


class Item:
    """One utterance, for the client."""

    def __init__(self) -> None:
        self.name = new_id("item")
        self.sent = ""  # of its text, as deltas

    def deltas(self, text: str, behind: str = "") -> Events:
        """What `text` says more than was sent, which stands; nothing where it says another thing.

        `behind` is what is not certain yet.
        """
        if not text.startswith(self.sent) or not (text[len(self.sent) :] or behind):
            return []
        delta, self.sent = text[len(self.sent) :], text
        event = {"type": f"{TRANSCRIPTION}.delta", "content_index": 0, "delta": delta}
        return [event | {"item_id": self.name, "alm": {"uncertain": behind}}]

    def completed(self, text: str, answer: Said, seconds: float) -> Events:
        """The whole text; deltas before it may have said another thing."""
        took: dict[str, Any] = {"type": "duration", "seconds": seconds}
        if isinstance(answer, Answer):
            took = usage(answer)
        event = {"type": f"{TRANSCRIPTION}.completed", "content_index": 0, "transcript": text}
        return [*self.deltas(text), event | {"item_id": self.name, "usage": took}]

    def failed(self, refused: Refused) -> Events:
        """The text could not be made."""
        kind = f"{TRANSCRIPTION}.failed"
        return [{"type": kind, "item_id": self.name, "content_index": 0, **refused.body}]


class Line:
    """One listener and the items of what it hears."""

    def __init__(self, server: Server, setup: Setup, start: float, beta: bool) -> None:
        """`start` is the session's seconds before it."""
        self.server, self.setup, self.start, self.beta = server, setup, start, beta
        model = server.model
        self.bytes = Bytes(setup.encoding, setup.rate, model.manifest.facts.audio.rate)
        name = task_of(server, "transcribe", setup.language)
        prompt, verbatim = in_context(server, name, setup.context)
        options: dict[str, Any] = {**server.settings.defaults}
        if setup.language:
            options["language"] = setup.language
        if verbatim:
            options["verbatim"] = True
        pauses = setup.turns and setup.turns.pauses
        try:
            self.listener = model.listen(
                prompt, pauses=pauses, every=EVERY, waiting=WAITING, **options
            )
        except AlmError as error:
            raise because(error, "session") from error
        self.items: dict[int, Item] = {}

    @property
    def full(self) -> bool:
        """Whether so much waits for the model that more should."""
        return self.listener.queued > 0 and self.listener.behind > 0.5 * WAITING

    def append(self, audio: str) -> Events:
        """Hear base64 text of the setup's encoding.

        Raises:
            Refused: it is none, or more than may wait.
        """
        try:
            data = base64.b64decode(audio, validate=True)
        except (binascii.Error, ValueError):
            raise Refused(400, "audio is no base64", param="audio") from None
        try:
            return self._told(self.listener.hear(self.bytes.feed(data)))
        except AlmError as error:
            refused = because(error, "audio")
            refused.code = "input_audio_buffer_full"
            raise refused from error

    def commit(self) -> Events:
        """End the utterance that goes on.

        Raises:
            Refused: there is none.
        """
        events = self._told(self.listener.hear(self.bytes.finish()))
        committed = self.listener.commit()
        if not any(isinstance(event, Stopped) for event in committed):
            raise Refused(400, "nothing was said yet", code="input_audio_buffer_commit_empty")
        return events + self._told(committed)

    def clear(self) -> Events:
        """Forget what goes on."""
        self.bytes.finish()
        self.items.pop(-1 if (number := self.listener.clear()) is None else number, None)
        return [{"type": "input_audio_buffer.cleared"}]

    def _told(self, events: list[Event]) -> Events:
        """Who speaks and who ended, as OpenAI says it."""
        told: Events = []
        for event in events:
            item = self.items.setdefault(event.number, Item())
            if isinstance(event, Started) and self.setup.turns:
                told.append(
                    {
                        "type": "input_audio_buffer.speech_started",
                        "audio_start_ms": self._ms(event.start),
                        "item_id": item.name,
                    }
                )
            elif isinstance(event, Stopped):
                told += self._stopped(event, item)
        return told

    def _stopped(self, event: Stopped, item: Item) -> Events:
        told: Events = []
        if self.setup.turns:
            end = self._ms(event.end)
            kind = "input_audio_buffer.speech_stopped"
            told.append({"type": kind, "audio_end_ms": end, "item_id": item.name})
        content = [{"type": "input_audio", "transcript": None}]
        added = {
            **{"id": item.name, "object": "realtime.item", "type": "message"},
            **{"status": "completed", "role": "user", "content": content},
        }
        kind = "conversation.item.created" if self.beta else "conversation.item.added"
        told.append({"type": "input_audio_buffer.committed", "item_id": item.name})
        told.append({"type": kind, "item": added})
        return told

    def _ms(self, seconds: float) -> int:
        return round(1000 * (self.start + seconds))

    # --- what the model says

    def run(self, task: Task) -> Generator[str, None, Final | Partial | None]:
        """What a thread of the server does for an utterance; pieces are of a final's text."""
        event = yield from self.listener.run(task)
        if isinstance(event, Final) and isinstance(event.answer, Answer):
            self.server.metrics.answer(event.answer)
        return event

    def said(self, event: Final | Partial | None) -> Events:
        """The events of what a run gave."""
        if event is None:
            return []
        item = self.items.get(event.number)
        if not item:  # it was cleared
            return []
        if isinstance(event, Partial):
            return item.deltas(event.certain, event.text[len(event.certain) :])
        del self.items[event.number]
        return item.completed(event.text, event.answer, event.end - event.start)
