"""Inputs of the server: forms, JSON and messages of a live socket, whoever sends them."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from random import Random
from typing import Any

import judge
import mutations
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

import alm
from alm.serve.app import app
from alm.serve.inside.server import Server
from alm.serve.settings import Settings

CHAT, LIVE = "/v1/chat/completions", "/v1/realtime"
FORMS = ("/v1/audio/transcriptions", "/v1/audio/translations")
BOUNDARY = "alm-edge"
VALUES = ("", "0", "1", "-1", "--1", "0.5", "nan", "inf", "9" * 5000, "²", "true", "text", "srt",
          "verbose_json", "en", "x" * 70_000, "é练🙂", "\x1b[31m", "\0", "transcribe")  # fmt: skip
FIELDS = ("model", "language", "prompt", "response_format", "temperature", "stream", "seed",
          "top_k", "num_beams", "max_tokens", "timestamp_granularities[]", "joins", "gate", "user",
          "include[]", "chunking_strategy", "no_repeat_ngram_size", "x", "file")  # fmt: skip
OPTIONS = ("temperature", "top_p", "top_k", "seed", "num_beams", "max_completion_tokens", "stop",
           "stream", "stream_options", "response_format", "n", "tools", "logit_bias")  # fmt: skip
ODD = (*mutations.ODD, *VALUES, 10**400, 1e300, {"type": "json_object"},
       {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object"}}},
       {"include_usage": True}, ["\n", "a"])  # fmt: skip
PATHS = ("/", "/health", "/metrics", "/v1/models", "/v1/models/x", "/v1/models/%00%ff", "/page/x",
         "/page/..%2f..%2fapp.py", "/page/app.js", "/%0a", CHAT, *FORMS)  # fmt: skip
ENDED = (503, 504)  # busy, or too slow


class Requests:
    """A server in this process, asked by Starlette's client."""

    def __init__(self, sources: Path, scratch: Path) -> None:
        del scratch
        model = alm.load(sources / "artifacts", "cpu", 1, 0)
        settings = Settings(("tiny",), timeout=10, idle=2, defaults={"max_new_tokens": 2})
        self.client = TestClient(app(Server(model, settings)), base_url="http://localhost")
        self.client.__enter__()  # one loop for all requests
        self.clip = (sources / "clip.wav").read_bytes()
        sound = base64.b64encode(self.clip).decode()
        clip = {"type": "input_audio", "input_audio": {"data": sound, "format": "wav"}}
        asked = [{"type": "text", "text": "Describe it."}, clip]
        self.chat = {"model": "tiny", "messages": [{"role": "user", "content": asked}]}
        told = {"role": "assistant", "content": "yes"}
        self.talk = {"messages": [*self.chat["messages"], told, *self.chat["messages"]]}
        pcm = base64.b64encode(self.clip[44:20_044]).decode()
        format_ = {"type": "audio/pcm", "rate": 24000}
        turns = {"type": "server_vad", "threshold": 0.5, "silence_duration_ms": 100}
        heard = {"format": format_, "turn_detection": turns, "transcription": {"model": "tiny"}}
        self.live: list[Any] = [
            {"type": "session.update",
             "session": {"type": "transcription", "audio": {"input": heard}}},
            {"type": "transcription_session.update",
             "session": {"input_audio_format": "g711_ulaw", "turn_detection": None}},
            {"type": "input_audio_buffer.append", "audio": pcm},
            {"type": "input_audio_buffer.commit", "event_id": "1"},
            {"type": "input_audio_buffer.clear"},
        ]  # fmt: skip

    def make(self, dice: Random) -> bytes:
        way = dice.random()
        if way < 0.1:
            head = {"method": dice.choice(["GET", "POST", "PUT", "OPTIONS"])}
            return _encoded(dice, head | {"path": dice.choice(PATHS)}, dice.randbytes(9))
        if way < 0.45:
            kind = f"multipart/form-data; boundary={BOUNDARY}"
            return _encoded(dice, {"path": dice.choice(FORMS), "type": kind}, self._form(dice))
        if way < 0.8:
            return _encoded(dice, {"path": CHAT, "type": "application/json"}, self._asked(dice))
        lines = dice.choices(self.live, k=dice.randint(1, 6))
        texts = [_text(dice, each).decode("utf-8", "replace") for each in lines]
        return _encoded(dice, {"path": LIVE}, "\n".join(texts).encode("utf-8", "replace"))

    def _asked(self, dice: Random) -> bytes:
        plain: dict[str, Any] = {**dice.choice([self.chat, self.talk])}
        for _ in range(dice.choice([0, 1, 2])):
            plain[dice.choice(OPTIONS)] = dice.choice(ODD)
        return _text(dice, plain)

    def _form(self, dice: Random) -> bytes:
        clip = mutations.raw(dice, self.clip, near=60) if dice.random() < 0.5 else self.clip
        parts = [_part("file", clip, dice.choice(["a.wav", "", "../x", "é\0", "a" * 3000]))]
        for _ in range(dice.choice([0, 1, 2, 50])):
            value = dice.choice(VALUES).encode()
            name = dice.choice(FIELDS) if dice.random() < 0.95 else dice.choice(VALUES)
            parts.append(_part(name, value, "x" if dice.random() < 0.05 else None))
        dice.shuffle(parts)
        body = b"".join(parts) + f"--{BOUNDARY}--\r\n".encode()
        return mutations.raw(dice, body, near=300) if dice.random() < 0.3 else body

    def run(self, content: bytes) -> str:
        head, _, body = content.partition(b"\n")
        said = json.loads(head)
        if said["path"] == LIVE:
            return self._talk(body.decode("utf-8", "replace").split("\n"))
        headers = {"content-type": said.get("type", "")} | said.get("headers", {})
        reply = self.client.request(
            said.get("method", "POST"), said["path"], headers=headers, content=body
        )
        if reply.status_code < 400 or reply.status_code in ENDED or said["path"] == "/metrics":
            return ""
        if reply.status_code >= 500:
            return f"status {reply.status_code}: {reply.text[:300]}"
        sentence = json.loads(reply.content)["error"]["message"]
        if len(sentence) > judge.LONGEST or judge.CONTROL.search(sentence):
            return f"the sentence {sentence[:200]!r}"
        return ""

    def _talk(self, messages: list[str]) -> str:
        """Say these on a live socket, and hear what is said until it closes."""
        wrong = ""
        with self.client.websocket_connect(f"ws://localhost{LIVE}") as socket:
            socket.receive_json()
            try:
                for message in messages:
                    socket.send_text(message)
                socket.send_text('{"type": "last", "event_id": "last"}')  # is refused, by its name
                while True:
                    event = socket.receive_json()
                    error = event.get("error") or {}
                    if error.get("code") in ("internal_error", "model_error"):
                        wrong = f"{event}"[:300]
                    if error.get("event_id") == "last":
                        return wrong
            except WebSocketDisconnect as left:
                return wrong if left.code in (1000, 1008, 1009, 1013) else f"closed: {left.code}"


def _text(dice: Random, plain: Any) -> bytes:
    """JSON with something else in it, or none; some of it is no UTF-8."""
    if dice.random() < 0.15:
        return json.dumps(plain).encode()
    made = mutations.json_bytes(dice, plain)
    if dice.random() < 0.05:
        return dice.choice([b"", b"[" * 50_000, b"9" * 5000, b"NaN", made.decode().encode("utf-16")
                            if made.isascii() else b"\xff"])  # fmt: skip
    return made.replace(b"\n", b" ")


def _part(name: str, content: bytes, filename: str | None) -> bytes:
    file = "" if filename is None else f'; filename="{filename}"'
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"{file}\r\n\r\n'
    return head.encode() + content + b"\r\n"


def _encoded(dice: Random, head: dict[str, Any], body: bytes) -> bytes:
    """The request as a file: a line of JSON, and the body. Some have odd headers."""
    if dice.random() < 0.1:
        odd = {"content-length": dice.choice(["0", "-1", "9" * 30, "x"])}
        odd |= {"authorization": "Bearer \xff"} if dice.random() < 0.3 else {}
        others = {"content-type": dice.choice(["", "text/plain", "multipart/form-data", "x" * 900])}
        hosts = {"host": dice.choice(["x", "[", "localhost:x"])}
        origins = {"origin": dice.choice(["null", "http://[", "http://localhost"])}
        odd = dice.choice([odd, others, hosts, origins])
        head = head | {"headers": {n: re.sub("[^ -~]", "?", text) for n, text in odd.items()}}
    return json.dumps(head).encode() + b"\n" + body
