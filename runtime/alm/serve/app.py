"""The server's routes, and how it starts and ends."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from alm.serve.endpoints import chat, transcriptions
from alm.serve.guard import Guard
from alm.serve.inside import metrics
from alm.serve.inside.server import Server
from alm.serve.realtime import session
from alm.serve.refused import Refused
from alm.serve.web import Page

Endpoint = Callable[[Server, Request], Awaitable[Response]]


def app(server: Server) -> Starlette:
    """The ASGI application of a server."""

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        yield
        server.close()

    def route(path: str, endpoint: Endpoint, method: str = "GET") -> Route:
        return Route(path, _counted(server, path, endpoint), methods=[method])

    page = Page()

    async def realtime(socket: WebSocket) -> None:
        await session.listen(server, socket)

    return Starlette(
        routes=[
            route("/", page.index),
            route("/page/{name}", page.file),
            route("/v1/audio/transcriptions", transcriptions.transcribe, "POST"),
            route("/v1/audio/translations", transcriptions.translate, "POST"),
            route("/v1/chat/completions", chat.complete, "POST"),
            route("/v1/models", _models),
            route("/v1/models/{name:path}", _model),
            WebSocketRoute(session.PATH, realtime),
            route("/health", _health),
            route("/metrics", _metrics),
        ],
        middleware=[Middleware(Guard, settings=server.settings)],
        exception_handlers={HTTPException: _http_error, Exception: _failed},
        lifespan=lifespan,
    )


def _counted(server: Server, path: str, endpoint: Endpoint) -> Any:
    """The endpoint, its refusals as OpenAI's error objects, counted."""

    async def answer(request: Request) -> Response:
        start, status = time.monotonic(), 500
        try:
            response = await endpoint(server, request)
            status = response.status_code
        except Refused as refused:
            response, status = refused.response(), refused.status
        except HTTPException as error:  # of the parser of forms
            status = error.status_code
            raise
        finally:
            server.metrics.request(path, status, time.monotonic() - start)
        return response

    return answer


async def _http_error(_: Request, error: Exception) -> Response:
    """What Starlette refuses: no such path, another method, a form that is none."""
    assert isinstance(error, HTTPException)
    code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code)
    refused = Refused(error.status_code, str(error.detail), code=code)
    refused.headers = dict(error.headers or {}) or None
    return refused.response()


async def _failed(_: Request, error: Exception) -> Response:
    """A fault of ours; Starlette raises it again for the log."""
    return Refused(500, "the server failed; its log says why", code="internal_error").response()


async def _health(server: Server, _: Request) -> Response:
    work = server.work
    return JSONResponse({"status": "ok", "running": work.running, "waiting": work.waiting})


async def _metrics(server: Server, _: Request) -> Response:
    return PlainTextResponse(server.metrics.text(server.work), media_type=metrics.CONTENT)


async def _models(server: Server, _: Request) -> Response:
    data = [_described(server, name) for name in server.settings.names]
    return JSONResponse({"object": "list", "data": data})


async def _model(server: Server, request: Request) -> Response:
    name = request.path_params["name"]
    if name not in server.settings.names:
        raise Refused(404, f"there is no model {name!r:.80} here", code="model_not_found")
    return JSONResponse(_described(server, name))


def _described(server: Server, name: str) -> dict[str, Any]:
    manifest = server.model.manifest
    facts = manifest.facts
    try:
        created = int(datetime.fromisoformat(manifest.created).timestamp())
    except ValueError:
        created = 0
    return {
        "id": name,
        "object": "model",
        "created": created,
        "owned_by": "alm-edge",
        "alm": {
            "tasks": manifest.tasks,
            "languages": facts.prompt.languages,
            "rate": facts.audio.rate,
            "one_turn": facts.prompt.single or facts.prompt.one_turn,
            "provider": server.model.provider,
            "words_timed": server.model.parts.aligner is not None,
        },
    }
