"""Conversations that may go on: their KV caches are kept until there is no room for them."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

from alm.generation.conversation import Conversation


@dataclass(frozen=True)
class Exchange:
    """A question with its clips, and the answer to it; None of the last, which is asked."""

    prompt: str
    clips: tuple[bytes, ...]
    answer: str | None = None


class Kept:
    """Conversations by what was said in them, the one used longest ago forgotten first."""

    def __init__(self, most_bytes: int) -> None:
        self.most = most_bytes
        self._lock = threading.Lock()
        self._kept: OrderedDict[bytes, tuple[Conversation, int]] = OrderedDict()

    @property
    def bytes(self) -> int:
        """Of all KV caches."""
        with self._lock:
            return sum(size for _, size in self._kept.values())

    def take(self, told: Sequence[Exchange], how: str) -> Conversation | None:
        """The conversation in which all this was said, for the caller alone from now on.

        `how` names the options that hold for all of its turns.
        """
        with self._lock:
            found = self._kept.pop(_key(told, how), None)
        return found[0] if found else None

    def put(self, told: Sequence[Exchange], how: str, conversation: Conversation) -> None:
        """Keep a conversation in which all this was said."""
        size = conversation.bytes
        if size > self.most:
            return
        with self._lock:
            self._kept[_key(told, how)] = conversation, size
            while sum(size for _, size in self._kept.values()) > self.most:
                self._kept.popitem(last=False)


def _key(told: Sequence[Exchange], how: str) -> bytes:
    digest = hashlib.sha256(how.encode())
    for exchange in told:
        for part in (exchange.prompt.encode(), *exchange.clips, (exchange.answer or "").encode()):
            digest.update(len(part).to_bytes(8, "little"))
            digest.update(part)
        digest.update(b"turn")
    return digest.digest()
