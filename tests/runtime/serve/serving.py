"""A server in a thread of the test, and OpenAI's own client to ask it."""

from __future__ import annotations

import base64
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import openai

from alm.generation.model import Model
from alm.serve import listening
from alm.serve.inside.server import Server
from alm.serve.settings import Settings
from demo.clips import FOLDER

NAME = "demo"


@dataclass(frozen=True)
class Served:
    """A server that runs."""

    server: Server
    url: str
    clients: ExitStack  # closed with the server: a socket left open fails whichever test comes next

    def client(self, key: str = "none") -> openai.OpenAI:
        made = openai.OpenAI(base_url=f"{self.url}/v1", api_key=key, max_retries=0, timeout=60)
        return self.clients.enter_context(made)


@contextmanager
def served(model: Model, **settings: Any) -> Iterator[Served]:
    made = Settings(**{"names": (NAME,), "rows": 4} | settings)
    opened = listening.listen("127.0.0.1", 0)
    server = Server(model, made)
    http = listening.made(server)
    thread = threading.Thread(target=lambda: http.run(sockets=[opened]))
    thread.start()
    while not http.started:
        time.sleep(0.01)
    with ExitStack() as clients:
        try:
            yield Served(server, f"http://127.0.0.1:{opened.getsockname()[1]}", clients)
        finally:
            http.should_exit = True
            thread.join(40)
            assert not thread.is_alive()


def clip(name: str) -> Path:
    """A clip of the demo."""
    return FOLDER / f"{name}.wav"


def audio(data: bytes | str, form: str = "wav") -> dict[str, Any]:
    """A part of a message: a clip's bytes, or a demo clip by its name."""
    data = clip(data).read_bytes() if isinstance(data, str) else data
    return {
        "type": "input_audio",
        "input_audio": {"data": base64.b64encode(data).decode(), "format": form},
    }


def text(words: str) -> dict[str, Any]:
    return {"type": "text", "text": words}


def user(*parts: dict[str, Any]) -> Any:
    return {"role": "user", "content": list(parts)}
