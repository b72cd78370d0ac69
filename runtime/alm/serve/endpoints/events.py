"""Server-sent events of an answer, and the wait for whoever asked to go away."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import suppress
from typing import Any, TypeVar

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from alm.serve.inside.work import End, Job, Work
from alm.serve.refused import Refused

T = TypeVar("T")


def event(data: Any) -> bytes:
    """One event: an object, or a text such as [DONE]."""
    text = data if isinstance(data, str) else json.dumps(data, ensure_ascii=False)
    return f"data: {text}\n\n".encode()


async def whole(work: Work, job: Job[T], request: Request) -> T:
    """What the job gives; it is cancelled when whoever asked has gone.

    Raises:
        Refused: see `Work.events`.
    """
    return await _present(work.result(job), request)


async def _present(wanted: Coroutine[Any, Any, T], request: Request) -> T:
    """What is waited for, as long as whoever asked is there."""
    gone, done = asyncio.create_task(_gone(request)), asyncio.create_task(wanted)
    try:
        await asyncio.wait((gone, done), return_when=asyncio.FIRST_COMPLETED)
        if not done.done():
            raise Refused(499, "the client has gone")
        return done.result()
    finally:
        for task in (gone, done):
            task.cancel()
            with suppress(asyncio.CancelledError, Exception):
                await task


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def streamed(
    work: Work,
    job: Job[T],
    request: Request,
    piece: Callable[[str], dict[str, Any]],
    before: list[dict[str, Any]],
    after: Callable[[T], list[Any]],
) -> Response:
    """An answer as events: `before`, each piece of text as `piece` makes it, and `after` it.

    What is wrong before the first piece is refused with a status of its own; what goes wrong later
    is an event with OpenAI's error object.

    Raises:
        Refused: see `Work.events`.
    """
    events = work.events(job)
    first = await _present(_next(events), request)

    async def body() -> AsyncIterator[bytes]:
        item: str | End[T] | None = first
        for data in before:
            yield event(data)
        try:
            while item is not None:
                if isinstance(item, End):
                    for data in after(item.value):
                        yield event(data)
                else:
                    yield event(piece(item))
                item = await _next(events)
        except Refused as refused:
            yield event(refused.body)
        finally:
            job.cancelled.set()
            await events.aclose()  # pyright: ignore[reportAttributeAccessIssue]

    headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
    return StreamingResponse(body(), media_type="text/event-stream", headers=headers)


async def _next(events: AsyncIterator[T]) -> T | None:
    try:
        return await events.__anext__()
    except StopAsyncIteration:
        return None
