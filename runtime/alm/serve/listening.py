"""A server that listens: the socket, the loop, and an end that finishes what runs."""

from __future__ import annotations

import socket
from collections.abc import Callable

import uvicorn

from alm.errors import BadOption
from alm.generation.model import Model
from alm.serve.app import app
from alm.serve.inside.server import Server
from alm.serve.realtime import session
from alm.serve.settings import LOOPBACK, Settings

LEAST_KEY = 8  # characters
CONNECTIONS = 1000  # open at once; beyond, a plain 503
GRACE = 30  # seconds that answers may take after the server was told to end
BACKLOG = 512


def check(settings: Settings) -> None:
    """Refuse, with BadOption, what would let anyone in, or nobody."""
    if settings.host not in LOOPBACK and not settings.api_key:
        raise BadOption(
            f"on {settings.host} others can reach the server, so it wants a key: --api-key KEY, or "
            "ALM_API_KEY in the environment"
        )
    if settings.api_key and len(settings.api_key) < LEAST_KEY:
        raise BadOption(f"an API key has at least {LEAST_KEY} characters")
    if not settings.api_key.isascii() or not settings.api_key.isprintable():
        raise BadOption("an API key is of printable ASCII characters")
    for origin in settings.origins:
        if not origin.startswith(("http://", "https://")) or origin.count("/") != 2:
            raise BadOption(f"--origin is as in https://example.org, not {origin!r:.80}")


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens.

    Raises:
        BadOption: there can be none.
    """
    opened = None
    try:
        family, kind, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        opened = socket.socket(family, kind)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opened.bind(address)
        opened.listen(BACKLOG)
    except (OSError, UnicodeError) as error:
        if opened:
            opened.close()
        why = getattr(error, "strerror", None) or error
        raise BadOption(f"nothing can listen on {host}:{port} ({why}); try --port 0") from error
    return opened


def made(server: Server) -> uvicorn.Server:
    """The HTTP server in front of it."""
    config = uvicorn.Config(
        app(server),
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=GRACE,
        limit_concurrency=CONNECTIONS,
        server_header=False,
        timeout_keep_alive=30,
        ws_max_size=session.MESSAGE_BYTES,
        ws_max_queue=2,
        ws_per_message_deflate=False,  # base64 of sound: nothing to be gained
    )
    return uvicorn.Server(config)


def serve(
    model: Model, settings: Settings, opened: socket.socket, tell: Callable[[str], None]
) -> None:
    """Answer requests until an interrupt or SIGTERM; what runs then is finished first.

    Args:
        model: opened with `together` of as many rows.
        settings: see there.
        opened: listens already.
        tell: is told the address.
    """
    host, port = opened.getsockname()[:2]
    name = f"[{host}]" if ":" in host else host
    tell(f"http://{name}:{port}  ({', '.join(settings.names)}; Ctrl-C ends it)")
    made(Server(model, settings)).run(sockets=[opened])
