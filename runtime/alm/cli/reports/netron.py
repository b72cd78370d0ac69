"""A graph in Netron: its page and the graph's files, served to this machine alone.

Netron's own server is not used: its page reports visits over the network, asks for consent first,
and locks itself half a year after its release. Here the same page may load nothing from elsewhere.
"""

from __future__ import annotations

import io
import re
import time
from collections.abc import Mapping
from html import escape
from http import HTTPStatus
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from alm.errors import BadArtifacts, MissingPackage

HOST = "127.0.0.1"
DATA = "/data/"
POLICY = (
    "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; "
    "worker-src 'self' blob:; frame-src 'none'; form-action 'none'"
)


class Viewer(ThreadingHTTPServer):
    """Serves `graph` and the other `files` (name -> path) from a free port, `port` if it is one.

    Raises:
        MissingPackage: Netron is not installed.
    """

    daemon_threads = True

    def __init__(self, graph: str, files: Mapping[str, Path], port: int) -> None:
        self.pages = _netron()
        self.files = {DATA + name: path for name, path in files.items()}
        self.page = _page(self.pages / "index.html", graph)
        try:
            super().__init__((HOST, port), _Handler)
        except OSError:  # taken, or not ours to take
            super().__init__((HOST, 0), _Handler)
        self.url = f"http://{HOST}:{self.server_port}"
        self.hosts = {f"{host}:{self.server_port}" for host in (HOST, "localhost")}

    def server_bind(self) -> None:
        """Without the name lookup of the base class, which may ask the network."""
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = HOST, int(self.server_address[1])


class _Handler(SimpleHTTPRequestHandler):
    server: Viewer  # pyright: ignore
    extensions_map = SimpleHTTPRequestHandler.extensions_map | {".js": "text/javascript"}

    def __init__(self, *args: Any) -> None:
        super().__init__(*args, directory=str(args[2].pages))

    def send_head(self) -> Any:
        """The response's head; only for a request that names this machine as its host."""
        if self.headers.get("Host") not in self.server.hosts:
            self.send_error(HTTPStatus.FORBIDDEN)  # another site's name that points here
            return None
        if urlsplit(self.path).path not in ("/", "/index.html"):
            return super().send_head()
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(self.server.page)))
        self.end_headers()
        return io.BytesIO(self.server.page)

    def translate_path(self, path: str) -> str:
        """A file of the graph, or one of Netron's."""
        name = unquote(urlsplit(path).path)
        return str(self.server.files.get(name) or super().translate_path(path))

    def list_directory(self, path: Any) -> None:
        """No folder is shown."""
        self.send_error(HTTPStatus.NOT_FOUND)

    def end_headers(self) -> None:
        """The policy, and consent to what the policy forbids anyway, so that nobody is asked."""
        self.send_header("Content-Security-Policy", POLICY)
        self.send_header("Set-Cookie", "consent=1; SameSite=Strict")
        self.send_header("Cache-Control", "no-store")
        super().end_headers()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 (the base's name)
        """Nothing: stderr is for our sentences."""


def _netron() -> Path:
    """Where Netron's pages are."""
    try:
        import netron
    except ImportError as error:
        raise MissingPackage(
            "netron is not installed; try: pip install 'alm-edge[netron]'"
        ) from error
    return Path(str(netron.__file__)).parent


def _page(index: Path, graph: str) -> bytes:
    """Netron's page, with which file to open, and as neither released nor old."""
    fields = {
        "type": "Python",
        "version": "0.0.0",
        "date": time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime()),
        "file": DATA + quote(graph),
        "name": graph,
        "identifier": graph.rpartition("/")[2],
    }
    metas = "\n".join(f'<meta name="{k}" content="{escape(v)}">' for k, v in fields.items())
    text = re.sub(r'<meta name="date" content=".*">', "", index.read_text("utf-8"))
    page, count = re.subn(r'<meta name="version" content=".*">', lambda _: metas, text)
    if count != 1:
        raise BadArtifacts(
            f"{index} is no page of Netron that is known; try: pip install netron==9.*"
        )
    return page.encode()
