"""A web server for the browser runtime: folders under names, isolated so that wasm has threads."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

# What browsers want before they let a page share memory between threads.
ISOLATED = {
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
}

# Runs a function body of `web` (web/src/index.js) and of what is given, `a`; an error is its text.
RUN = """
const done = arguments[arguments.length - 1], a = [...arguments].slice(1, -1);
import('/web/src/index.js').then(async (web) => {
  const of = Object.getPrototypeOf(async () => {}).constructor;
  return new of('web', 'a', arguments[0])(web, a);
}).then(done, (error) => done(`${error.name}: ${error.message}`));
"""
# The answer of the page's `model` to samples, a prompt and options, with its pieces.
STREAMED = """
const pieces = [];
const onText = (piece) => pieces.push(piece);
const answer = await model.generate(new Float32Array(a[0]), a[1], {...a[2], onText});
return {...answer, pieces};
"""


class Handler(SimpleHTTPRequestHandler):
    """Files of folders by the first word of their path, as any static host gives them."""

    protocol_version = "HTTP/1.1"
    extensions_map = {
        **SimpleHTTPRequestHandler.extensions_map,
        ".mjs": "text/javascript",
        ".wasm": "application/wasm",
    }

    def __init__(self, *given: Any, folders: Mapping[str, Path]) -> None:
        self.folders = folders
        super().__init__(*given)

    def translate_path(self, path: str) -> str:
        name, _, rest = path.split("?")[0].lstrip("/").partition("/")
        self.directory = str(self.folders.get(name, "/dev/null"))
        return super().translate_path("/" + rest)

    def end_headers(self) -> None:
        for name, value in ISOLATED.items():
            self.send_header(name, value)
        super().end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: the tests look at what the browser asked for."""


@contextmanager
def hosted(folders: Mapping[str, Path]) -> Iterator[str]:
    """The address of a server of these folders; one that is added later is served too."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, folders=folders))
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@dataclass
class Host:
    """A server of web/ and of artifact folders by name, and a page of it in the browser."""

    url: str
    folders: dict[str, Path]
    browser: Any

    def run(self, body: str, *given: Any) -> Any:
        """What a function body gives of `web` and `a`."""
        return self.browser.execute_async_script(RUN, body, *given)
