"""The page at `/`: files of ours that a browser is given, and no others."""

from __future__ import annotations

import hashlib
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response

from alm.serve.inside.server import Server
from alm.serve.refused import Refused

FOLDER = Path(__file__).parent / "page"
KINDS = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
# Nothing from elsewhere and no script in the page itself; clips are played from memory (blob:).
POLICY = (
    "default-src 'self'; media-src 'self' blob:; object-src 'none'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "Permissions-Policy": "microphone=(self), camera=(), geolocation=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-cache",  # asked for again each time, and not sent where it is the same
}


class Page:
    """The page's files, read once; a name in an address is looked up among theirs."""

    def __init__(self) -> None:
        self._files: dict[str, tuple[bytes, str, str]] = {}  # name -> what, its kind, its tag
        for path in FOLDER.iterdir():
            if kind := KINDS.get(path.suffix):
                body = path.read_bytes()
                tag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
                self._files[path.name] = body, kind, tag

    async def index(self, _: Server, request: Request) -> Response:
        """`GET /`."""
        return self._answer("index.html", request)

    async def file(self, _: Server, request: Request) -> Response:
        """`GET /page/NAME`.

        Raises:
            Refused: there is no such file (404).
        """
        return self._answer(request.path_params["name"], request)

    def _answer(self, name: str, request: Request) -> Response:
        if name not in self._files:
            raise Refused(404, f"the page has no file {name!r:.80}", code="not_found")
        body, kind, tag = self._files[name]
        headers = HEADERS | {"ETag": tag}
        if request.headers.get("if-none-match") == tag:
            return Response(status_code=304, headers=headers)
        return Response(body, headers=headers, media_type=kind)
