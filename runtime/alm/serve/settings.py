"""How a server is set up."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from alm.audio.reader import HOUR

LOOPBACK = ("127.0.0.1", "localhost", "::1")
MIB = 2**20


@dataclass(frozen=True)
class Settings:
    """What a server takes, and from whom.

    `names`: the model's, of which a request may give any. `rows`: requests answered at once.
    `waiting`: requests that wait beside them; more are refused. `upload_bytes`: of one request.
    `audio_seconds`: of one clip. `timeout`: seconds from a request to its last word. `kept_bytes`:
    of the KV caches of conversations that may go on. `defaults`: decoding options where a request
    says nothing. `sockets`: live sockets at once. `idle`: seconds without a message after which one
    is closed.
    """

    names: tuple[str, ...] = ("model",)
    host: str = "127.0.0.1"
    api_key: str = ""
    origins: tuple[str, ...] = ()
    rows: int = 4
    waiting: int = 32
    upload_bytes: int = 64 * MIB
    audio_seconds: float = HOUR
    timeout: float = 600.0
    kept_bytes: int = 512 * MIB
    defaults: dict[str, Any] = field(default_factory=dict)
    sockets: int = 16
    idle: float = 300.0
