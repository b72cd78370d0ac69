"""Who may ask, from where, and how much may be sent: looked at before anything is read."""

from __future__ import annotations

import hmac
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from alm.serve.refused import Refused
from alm.serve.settings import LOOPBACK, MIB, Settings

KEY_PROTOCOL = "openai-insecure-api-key."  # OpenAI's name for it
OPEN = ("/", "/health")  # and what lies under /page/: they need no key


class Guard:
    """Stands before the app.

    A web page that a person visits can send requests to this machine. So a server without a key
    answers only to its own name (a foreign name may be made to lead here), and a request from
    another page's origin is refused unless that origin was named.
    """

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self.app, self.settings = app, settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        try:
            self._check(scope, headers)
            if scope["type"] == "http" and scope["method"] == "OPTIONS":
                await self._preflight(headers)(scope, receive, send)
                return
        except Refused as refused:
            await _refuse(refused, scope, receive, send)
            return
        if scope["type"] == "http":
            receive = self._bounded(receive)
            send = self._allowing(headers.get("origin"), send)
        await self.app(scope, receive, send)

    def _check(self, scope: Scope, headers: Headers) -> None:
        host = _hostname(headers.get("host", ""))
        if not self.settings.api_key and host not in (*LOOPBACK, self.settings.host):
            raise Refused(
                403, f"this server answers to localhost, not to {host!r:.80}", code="foreign_host"
            )
        origin = headers.get("origin")
        if origin and not self._welcome(origin, headers.get("host", "")):
            raise Refused(
                403,
                f"pages of {origin:.200} may not ask this server; it may: alm serve --origin URL",
                code="foreign_origin",
            )
        path = scope["path"]
        free = path in OPEN or path.startswith("/page/") or scope.get("method") == "OPTIONS"
        if self.settings.api_key and not free:
            self._check_key(headers, scope)
        length = headers.get("content-length", "")
        if length.isdecimal() and int(length) > self.settings.upload_bytes:
            raise self._too_large()

    def _check_key(self, headers: Headers, scope: Scope) -> None:
        kind, _, key = headers.get("authorization", "").partition(" ")
        for name in scope.get("subprotocols", []):  # of a page's socket, which has no headers
            if name.startswith(KEY_PROTOCOL):
                kind, key = "bearer", name.removeprefix(KEY_PROTOCOL)
        right = hmac.compare_digest(key.encode(), self.settings.api_key.encode())
        if kind.lower() != "bearer" or not right:
            raise Refused(
                401,
                "wrong or missing API key; send it as: Authorization: Bearer KEY",
                code="invalid_api_key",
                headers={"WWW-Authenticate": "Bearer"},
            )

    def _welcome(self, origin: str, host: str) -> bool:
        return origin in self.settings.origins or origin.partition("://")[2] == host

    def _too_large(self) -> Refused:
        most = self.settings.upload_bytes / MIB
        return Refused(
            413,
            f"a request holds at most {most:g} MiB here; send less, or: alm serve --max-upload MIB",
            code="request_too_large",
            headers={"Connection": "close"},
        )

    def _preflight(self, headers: Headers) -> Response:
        asked = headers.get("access-control-request-headers", "authorization, content-type")
        allowed = {
            "Access-Control-Allow-Methods": "GET, POST",
            "Access-Control-Allow-Headers": asked,
            "Access-Control-Max-Age": "600",
        }
        origin = headers.get("origin", "")
        there = {"Access-Control-Allow-Origin": origin, "Vary": "Origin"} if origin else {}
        return Response(status_code=204, headers=allowed | there)

    def _bounded(self, receive: Receive) -> Receive:
        """Counts what comes, be its length said or not."""
        got = 0

        async def counted() -> Message:
            nonlocal got
            message = await receive()
            got += len(message.get("body", b""))
            if got > self.settings.upload_bytes:
                raise self._too_large()
            return message

        return counted

    def _allowing(self, origin: str | None, send: Send) -> Send:
        """Says that a named origin may read the answer."""

        async def allowed(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers["X-Content-Type-Options"] = "nosniff"
                if origin and origin in self.settings.origins:
                    headers["Access-Control-Allow-Origin"] = origin
                    headers.add_vary_header("Origin")
            await send(message)

        return allowed


async def _refuse(refused: Refused, scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "http":
        await refused.response()(scope, receive, send)
        return
    await receive()  # the wish to connect
    await send({"type": "websocket.close", "code": 1008, "reason": str(refused)[:120]})


def _hostname(host: str) -> str:
    """The name in a Host header, without its port: `[::1]:80` is ::1."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""
