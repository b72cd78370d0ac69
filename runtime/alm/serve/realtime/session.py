"""A live socket: what the client says, what the model says, and who waits for whom."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections import deque
from contextlib import aclosing, suppress
from dataclasses import replace
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from alm.hearing.tasks import Task
from alm.serve.endpoints.fields import Fields
from alm.serve.inside.server import Server, parsed
from alm.serve.inside.work import End
from alm.serve.realtime.line import Events, Line, new_id
from alm.serve.realtime.setup import Setup, updated, updated_beta
from alm.serve.refused import Refused, because

PATH = "/v1/realtime"
MESSAGE_BYTES = 2 * 2**20  # of one message: 32 s of 24 kHz in base64; a longer one ends the socket
LARGE = 2**15  # characters of a message that is read beside the loop
ROOM = 10.0  # seconds that sound waits for the model, before it is refused
SENT = 30.0  # seconds in which a client takes an event, or it is left
AGAIN = 0.1  # seconds until a final that found the queue full is tried again
SUBPROTOCOL = "realtime"
UPDATES = {
    "session.update": ("session.updated", updated, Setup.session),
    "transcription_session.update": ("transcription_session.updated", updated_beta, Setup.beta),
}

log = logging.getLogger("alm.serve")


async def listen(server: Server, socket: WebSocket) -> None:
    """One socket from its first message to its last."""
    start = time.monotonic()
    offered = socket.scope.get("subprotocols", [])
    await socket.accept(SUBPROTOCOL if SUBPROTOCOL in offered else None)
    session = Session(server, socket)
    if server.sockets >= server.settings.sockets:
        text = f"{server.sockets} sockets are open and no more may be: alm serve --sockets N"
        await session.leave(Refused(429, text, code="rate_limit_exceeded"), 1013)
        return
    server.sockets += 1
    try:
        await session.run()
    finally:
        server.sockets -= 1
        server.metrics.request(PATH, 101, time.monotonic() - start)


class Session:
    """One client. Whoever holds `_order` may change what is heard and tell what came of it."""

    def __init__(self, server: Server, socket: WebSocket) -> None:
        self.server, self.socket, self.name = server, socket, new_id("sess")
        self.beta = "realtime=v1" in socket.headers.get("openai-beta", "")
        self.setup = Setup(server.settings.names[0])
        self._lines: deque[Line] = deque()  # the last is spoken to; those before it are finished
        self._order, self._wake = asyncio.Lock(), asyncio.Event()
        self._previous: str | None = None  # the item that was committed last

    async def run(self) -> None:
        """Until the client goes, or is left."""
        try:
            asked = self.socket.query_params.get("model")
            model = self.server.check_model(Fields({"model": asked or None}))
            self.setup = replace(self.setup, model=model)
            self._lines.append(Line(self.server, self.setup, 0.0, self.beta))
        except Refused as refused:
            await self.leave(refused, 1008)
            return
        working = asyncio.create_task(self._work())
        try:
            kind = "transcription_session.created" if self.beta else "session.created"
            view = Setup.beta if self.beta else Setup.session
            await self._tell([{"type": kind, "session": view(self.setup, self.name)}])
            await self._read()
        except (WebSocketDisconnect, asyncio.TimeoutError, OSError, RuntimeError):
            pass  # it has gone, or takes nothing any more
        finally:
            working.cancel()
            with suppress(asyncio.CancelledError, Exception):
                await working
            await self._close(1000)

    async def leave(self, refused: Refused, code: int) -> None:
        """Say why, and close."""
        with suppress(WebSocketDisconnect, asyncio.TimeoutError, OSError, RuntimeError):
            await self._tell([_error(refused)])
            await self._close(code)

    async def _close(self, code: int) -> None:
        if self.socket.application_state == WebSocketState.CONNECTED:
            with suppress(Exception):
                await asyncio.wait_for(self.socket.close(code), SENT)

    async def _tell(self, events: Events) -> None:
        """Send events; a client that takes none holds up its own session alone, and not for long.

        Raises:
            asyncio.TimeoutError, WebSocketDisconnect: it is not there any more.
        """
        for event in events:
            if event["type"] in ("input_audio_buffer.committed", *_ADDED):
                event["previous_item_id"] = self._previous
                if event["type"] in _ADDED:
                    self._previous = event["item"]["id"]
            whole = {"event_id": new_id("event"), **event}
            await asyncio.wait_for(self.socket.send_text(json.dumps(whole)), SENT)

    # --- what the client says

    async def _read(self) -> None:
        idle = self.server.settings.idle
        while True:
            try:
                message = await asyncio.wait_for(self.socket.receive(), idle)
            except asyncio.TimeoutError:
                why = f"nothing was sent for {idle:g} s"
                await self.leave(Refused(408, why, code="idle_timeout"), 1000)
                return
            if message["type"] == "websocket.disconnect":
                return
            await self._room()
            text = message.get("text")
            async with self._order:
                await self._tell(await self._handled(text))
            self._wake.set()

    async def _room(self) -> None:
        """Wait a little where too much waits for the model; the client is not read meanwhile."""
        until = time.monotonic() + ROOM
        while self._lines[-1].full and time.monotonic() < until:
            await asyncio.sleep(AGAIN)

    async def _handled(self, text: str | None) -> Events:
        """The events that answer a message; what is wrong with it is one."""
        given: dict[str, Any] = {}
        try:
            if text is None:
                raise Refused(400, "events are JSON in messages of text, not of bytes")
            if len(text) > LARGE:
                given = await run_in_threadpool(_parsed, text)
                return await run_in_threadpool(self._answered, given)
            given = _parsed(text)
            return self._answered(given)
        except Refused as refused:
            return [_error(refused, given.get("event_id"))]

    def _answered(self, given: dict[str, Any]) -> Events:
        fields, line = Fields(given), self._lines[-1]
        kind = fields.text("type")
        fields.take("event_id")
        if kind in UPDATES:
            session = fields.take("session")
            fields.end()
            return self._updated(kind, session)
        if kind == "input_audio_buffer.append":
            audio = fields.text("audio")
            fields.end()
            return line.append(audio)
        if kind not in ("input_audio_buffer.commit", "input_audio_buffer.clear"):
            raise Refused(
                400,
                f"an event of type {kind!r:.80} is not done here; these are: {', '.join(UPDATES)}, "
                "input_audio_buffer.append, .commit and .clear",
                param="type",
                code="unsupported_event",
            )
        fields.end()
        return line.commit() if kind.endswith("commit") else line.clear()

    def _updated(self, kind: str, session: Any) -> Events:
        """Other settings hold for sound from here on."""
        told, update, view = UPDATES[kind]
        new, line = update(self.server, self.setup, session), self._lines[-1]
        if new != self.setup:
            if line.listener.speaking:
                why = "somebody is speaking; commit or clear what was said, then change the session"
                raise Refused(400, why, code="session_busy")
            start = line.start + line.listener.seconds
            self._lines.append(Line(self.server, new, start, self.beta))
            line.listener.end()
            self.setup = new
        return [{"type": told, "session": view(new, self.name)}]

    # --- what the model says

    async def _work(self) -> None:
        """Have what is due heard, one utterance at a time."""
        try:
            while True:
                self._wake.clear()
                async with self._order:
                    line = self._lines[0]
                    task = line.listener.take()
                    if not task and len(self._lines) > 1:
                        self._lines.popleft()
                        continue
                if not task or not await self._asked(line, task):
                    await self._wake.wait()
        except (WebSocketDisconnect, asyncio.TimeoutError, OSError, RuntimeError):
            await self._close(1011)  # it takes nothing: the reader sees that it has gone
        except Exception as error:
            log.exception("a live socket failed")
            await self.leave(because(error), 1011)

    async def _asked(self, line: Line, task: Task) -> bool:
        """Have one utterance heard; False where there is no time for a partial."""
        if not task.final and self.server.work.waiting:
            return False
        item = line.items.get(task.number)
        try:
            job = await self._submitted(line, task)
            text = ""
            # Left half-way, because the client has gone, the job ends too.
            async with aclosing(self.server.work.events(job)) as events:  # pyright: ignore[reportArgumentType]
                async for event in events:
                    async with self._order:
                        if isinstance(event, End):
                            await self._tell(line.said(event.value))
                        elif item:
                            text += event
                            await self._tell(item.deltas(text.strip()))
        except Refused as refused:
            if not task.final:
                return False
            async with self._order:
                line.items.pop(task.number, None)
                await self._tell(item.failed(refused) if item else [])
        return True

    async def _submitted(self, line: Line, task: Task) -> Any:
        """The job; a final waits for its place in the queue as long as a request may take."""
        until = time.monotonic() + self.server.work.timeout
        while True:
            try:
                return self.server.work.submit(lambda: line.run(task))
            except Refused as refused:
                if not task.final or refused.status != 429 or time.monotonic() > until:
                    raise
            await asyncio.sleep(AGAIN)


_ADDED = ("conversation.item.added", "conversation.item.created")


def _parsed(text: str) -> dict[str, Any]:
    given = parsed(text, "the message")
    if not isinstance(given, dict):
        raise Refused(400, "an event is a JSON object")
    return given


def _error(refused: Refused, event_id: Any = None) -> dict[str, Any]:
    error = because(refused).body["error"]
    name = event_id if isinstance(event_id, str) else None
    return {"type": "error", "error": error | {"event_id": name}}
