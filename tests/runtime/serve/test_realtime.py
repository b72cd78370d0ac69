"""Live sockets: OpenAI's events by its own client, what is refused, and clients that misbehave."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import soxr
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

import alm
from alm.generation.model import Model
from alm.serve.realtime import line, session
from tests.runtime.serve.serving import NAME, Served, clip, served

KEY = "a key of some length"
LAMP, DIGITS = "turn on the lamp in the kitchen", "four two eight eight one"
SAID = "conversation.item.input_audio_transcription"


@pytest.fixture(scope="module")
def model(demo: Path) -> Model:
    return alm.load(demo, threads=1, together=2)


@pytest.fixture(scope="module")
def there(model: Model) -> Iterator[Served]:
    with served(model, rows=2) as running:
        yield running


def quiet(seconds: float) -> np.ndarray:
    noise = np.random.default_rng(0).standard_normal(int(16_000 * seconds))
    return (1e-4 * noise).astype(np.float32)


def spoken(*names: str) -> np.ndarray:
    """Demo clips with pauses around them, at 16 kHz."""
    clips = [[soundfile.read(clip(name), dtype="float32")[0], quiet(1.3)] for name in names]
    return np.concatenate([quiet(1), *[part for pair in clips for part in pair]])


def encoded(pcm: np.ndarray, rate: int = 24_000, subtype: str = "PCM_16") -> bytes:
    at_rate = pcm if rate == 16_000 else soxr.resample(pcm, 16_000, rate, quality="HQ")
    file = io.BytesIO()
    soundfile.write(file, np.clip(at_rate, -1, 1), rate, format="RAW", subtype=subtype)
    return file.getvalue()


class Client:
    """A client that says and hears plain JSON."""

    def __init__(self, there: Served, query: str = "", **options: Any) -> None:
        url = there.url.replace("http", "ws") + "/v1/realtime" + query
        self.stack = ExitStack()
        self.socket: ClientConnection = self.stack.enter_context(connect(url, **options))
        self.first = self.event() if not query else {}

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.stack.close()

    def say(self, kind: str, **fields: Any) -> None:
        self.socket.send(json.dumps({"type": kind, **fields}))

    def event(self) -> dict[str, Any]:
        return json.loads(self.socket.recv(timeout=20))

    def setup(self, **given: Any) -> dict[str, Any]:
        """Set what sound is heard, and give the answer."""
        self.say("session.update", session={"type": "transcription", "audio": {"input": given}})
        return self.event()

    def sound(self, data: bytes, size: int = 9601) -> None:
        for at in range(0, len(data), size):
            piece = base64.b64encode(data[at : at + size]).decode()
            self.say("input_audio_buffer.append", audio=piece)

    def until(self, kind: str) -> list[dict[str, Any]]:
        events = [self.event()]
        while events[-1]["type"] != kind:
            assert events[-1]["type"] != "error", events[-1]
            events.append(self.event())
        return events


def until(ready: Any, seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.01)


def test_openais_client_is_told_who_speaks_and_what(there: Served) -> None:
    data, events = encoded(spoken("lamp", "digits")), []
    with there.client().realtime.connect(extra_query={"intent": "transcription"}) as connection:
        found: Any = {"transcription": {"model": NAME}, "turn_detection": {"type": "server_vad"}}
        connection.session.update(session={"type": "transcription", "audio": {"input": found}})
        for at in range(0, len(data), 9600):
            piece = base64.b64encode(data[at : at + 9600]).decode()
            connection.input_audio_buffer.append(audio=piece)
        while sum(event.type == f"{SAID}.completed" for event in events) < 2:
            events.append(connection.recv())
    assert [event.type for event in events[:2]] == ["session.created", "session.updated"]
    assert events[1].session.audio.input.turn_detection.prefix_padding_ms == 300
    items = list(dict.fromkeys(e.item_id for e in events if hasattr(e, "item_id")))
    assert len(items) == 2
    for item, words in zip(items, (LAMP, DIGITS), strict=True):
        of = [e for e in events if getattr(e, "item_id", "") == item]
        kinds = [e.type for e in of if not e.type.endswith("delta")]
        assert kinds == [
            *("input_audio_buffer.speech_started", "input_audio_buffer.speech_stopped"),
            *("input_audio_buffer.committed", f"{SAID}.completed"),
        ]
        assert of[-1].transcript == words and of[-1].usage.type == "tokens"
        assert "".join(e.delta for e in of if e.type.endswith("delta")) == words
    starts = [e.audio_start_ms for e in events if e.type.endswith("speech_started")]
    stops = [e.audio_end_ms for e in events if e.type.endswith("speech_stopped")]
    assert 600 < starts[0] < 1200 and 2800 < stops[0] < 3400 < starts[1] < stops[1] < 6700
    previous = [e.previous_item_id for e in events if e.type.endswith("buffer.committed")]
    assert previous == [None, items[0]]


@pytest.mark.parametrize(
    ("form", "rate", "subtype"),
    [
        ({"type": "audio/pcm", "rate": 8000}, 8000, "PCM_16"),
        ({"type": "audio/pcm", "rate": 16_000}, 16_000, "PCM_16"),
        ({"type": "audio/pcm", "rate": 44_100}, 44_100, "PCM_16"),
        ({"type": "audio/pcm", "rate": 48_000}, 48_000, "PCM_16"),
        ({"type": "audio/pcmu"}, 8000, "ULAW"),
        ({"type": "audio/pcma"}, 8000, "ALAW"),
    ],
)
def test_sound_of_other_rates_and_encodings_is_heard(
    there: Served, form: dict[str, Any], rate: int, subtype: str
) -> None:
    with Client(there) as client:
        answer = client.setup(format=form)
        assert answer["session"]["audio"]["input"]["format"] == form
        client.sound(encoded(spoken("lamp"), rate, subtype), size=3001)
        said = client.until(f"{SAID}.completed")[-1]["transcript"]
        assert said.split()[:2] == LAMP.split()[:2] and len(said.split()) >= 6
        if rate >= 16_000:
            assert said == LAMP


def test_the_client_may_say_when_an_utterance_ends(there: Served) -> None:
    with Client(there) as client:
        assert (
            client.setup(turn_detection=None)["session"]["audio"]["input"]["turn_detection"] is None
        )
        client.say("input_audio_buffer.commit", event_id="mine")
        error = client.event()["error"]
        assert (error["code"], error["event_id"]) == ("input_audio_buffer_commit_empty", "mine")
        client.sound(encoded(spoken("siren")))
        client.say("input_audio_buffer.clear")
        assert client.event()["type"] == "input_audio_buffer.cleared"
        for name, words in (("lamp", LAMP), ("digits", DIGITS)):
            client.sound(encoded(soundfile.read(clip(name), dtype="float32")[0]))
            client.say("input_audio_buffer.commit")
            events = client.until(f"{SAID}.completed")
            assert [e["type"] for e in events[:2]] == [
                *("input_audio_buffer.committed", "conversation.item.added"),
            ]
            deltas = [e["delta"] for e in events if e["type"].endswith("delta")]
            assert "".join(deltas) == events[-1]["transcript"] == words
            assert len(deltas) > 1  # as they are made


def test_the_beta_has_its_own_names(there: Served) -> None:
    headers = {"OpenAI-Beta": "realtime=v1"}
    with Client(there, additional_headers=headers) as client:
        assert client.first["type"] == "transcription_session.created"
        asked = {
            "input_audio_format": "pcm16",
            "input_audio_transcription": {"model": NAME, "prompt": ""},
            "turn_detection": {"type": "server_vad", "silence_duration_ms": 700},
        }
        client.say("transcription_session.update", session=asked)
        updated = client.event()
        assert updated["type"] == "transcription_session.updated"
        assert updated["session"]["turn_detection"]["silence_duration_ms"] == 700
        client.sound(encoded(spoken("lamp")))
        events = client.until(f"{SAID}.completed")
        assert events[-1]["transcript"] == LAMP
        assert "conversation.item.created" in [e["type"] for e in events]


def test_silence_and_a_threshold_are_honoured(there: Served) -> None:
    with Client(there) as client:
        client.sound(encoded(quiet(3)))
        client.setup(turn_detection={"type": "server_vad", "threshold": 1.0})  # nothing came before
        faint = 10 ** (-36 / 20) * spoken("lamp") + 10 * quiet(5)[: len(spoken("lamp"))]
        client.sound(encoded(faint.astype(np.float32)))
        client.setup(turn_detection={"type": "server_vad", "threshold": 0.3})
        client.sound(encoded(faint.astype(np.float32)))
        assert client.until("input_audio_buffer.speech_started")


# --- refused


@pytest.mark.parametrize(
    ("given", "param"),
    [
        ({"noise_reduction": {"type": "near_field"}}, "noise_reduction"),
        ({"turn_detection": {"type": "semantic_vad"}}, "turn_detection.type"),
        ({"turn_detection": {"type": "server_vad", "threshold": 2}}, "turn_detection.threshold"),
        (
            {"turn_detection": {"type": "server_vad", "create_response": True}},
            "turn_detection.create_response",
        ),
        (
            {"turn_detection": {"type": "server_vad", "idle_timeout_ms": 9000}},
            "turn_detection.idle_timeout_ms",
        ),
        ({"format": {"type": "audio/pcm", "rate": 5}}, "format.rate"),
        ({"format": {"type": "audio/pcmu", "rate": 16_000}}, "format.rate"),
        ({"format": {"type": "audio/opus"}}, "format.type"),
        ({"format": "mp3"}, "format"),
        ({"transcription": None}, "transcription"),
        ({"transcription": {"model": "whisper-1"}}, "transcription.model"),
        ({"transcription": {"language": "xx"}}, "transcription.language"),
        ({"transcription": {"prompt": "names"}}, "transcription.prompt"),
        ({"transcription": {"keywords": ["names"]}}, "transcription.keywords"),
        ({"voice": "alloy"}, "voice"),
    ],
)
def test_settings_that_are_not_done_are_refused_by_name(
    there: Served, given: dict[str, Any], param: str
) -> None:
    with Client(there) as client:
        answer = client.setup(**given)
        assert answer["type"] == "error", answer
        assert answer["error"]["param"] == f"session.audio.input.{param}"
        assert client.setup()["type"] == "session.updated"


def test_other_events_and_sessions_are_refused(there: Served) -> None:
    with Client(there) as client:
        for kind, fields, param in (
            ("response.create", {}, "type"),
            ("session.update", {"session": {"type": "realtime"}}, "session.type"),
            ("session.update", {"session": 5}, "session"),
            ("session.update", {"session": {"type": "transcription", "include": ["x"]}},
             "session.include"),
            ("transcription_session.update", {"session": {"modalities": ["audio"]}},
             "session.modalities"),
            ("input_audio_buffer.append", {"audio": "", "rate": 5}, "rate"),
            ("input_audio_buffer.append", {"audio": 5}, "audio"),
            ("input_audio_buffer.append", {"audio": "no base64!"}, "audio"),
        ):  # fmt: skip
            client.say(kind, event_id="e7", **fields)
            error = client.event()["error"]
            assert (error["param"], error["event_id"]) == (param, "e7"), error
        for garbage in ("", "{", "[]", "null", "[" * 100_000, b"\0\1\2"):
            client.socket.send(garbage)
            assert client.event()["error"]["type"] == "invalid_request_error"
        client.sound(encoded(spoken("lamp")))  # and it hears as ever
        assert client.until(f"{SAID}.completed")[-1]["transcript"] == LAMP


def test_settings_change_between_utterances_and_not_within(there: Served) -> None:
    with Client(there) as client:
        data = encoded(spoken("lamp"))
        client.sound(data[: len(data) // 2])
        client.until("input_audio_buffer.speech_started")
        form = {"type": "audio/pcm", "rate": 16_000}
        busy = {}
        while busy.get("type") != "error":
            busy = client.setup(format=form) if not busy else client.event()
        assert busy["error"]["code"] == "session_busy"
        client.sound(data[len(data) // 2 :])
        assert client.until(f"{SAID}.completed")[-1]["transcript"] == LAMP
        assert client.setup(format=form)["type"] == "session.updated"
        client.sound(encoded(spoken("digits"), 16_000))
        events = client.until(f"{SAID}.completed")
        assert events[-1]["transcript"] == DIGITS
        start = next(e["audio_start_ms"] for e in events if "audio_start_ms" in e)
        assert 5000 < start < 5600  # of all that was sent


def test_a_message_that_is_too_large_ends_the_socket(there: Served) -> None:
    with Client(there) as client:
        with pytest.raises(ConnectionClosed) as closed:
            client.socket.send("x" * (session.MESSAGE_BYTES + 1))
            client.event()
        assert closed.value.rcvd and closed.value.rcvd.code == 1009
    until(lambda: not there.server.sockets)


def test_another_model_is_refused_and_the_socket_closed(there: Served) -> None:
    with Client(there, "?model=gpt-realtime") as client:
        assert client.event()["error"]["code"] == "model_not_found"
        with pytest.raises(ConnectionClosed):
            client.event()
    with Client(there, f"?model={NAME}") as client:
        assert client.event()["type"] == "session.created"


def test_a_key_is_wanted_where_there_is_one(model: Model) -> None:
    with served(model, rows=1, api_key=KEY.replace(" ", "-")) as there:
        key = KEY.replace(" ", "-")
        keys: Any = ({}, {"additional_headers": {"Authorization": "Bearer no"}})
        for wrong in keys:
            with pytest.raises(InvalidStatus) as refused:
                Client(there, **wrong)
            assert refused.value.response.status_code == 403
        with Client(there, additional_headers={"Authorization": f"Bearer {key}"}) as client:
            assert client.first
        offered: Any = ["realtime", f"openai-insecure-api-key.{key}"]  # a page's way
        with Client(there, subprotocols=offered) as client:
            assert client.first and client.socket.subprotocol == "realtime"
        with pytest.raises(InvalidStatus):  # any page may try
            Client(there, origin="https://evil.example", subprotocols=offered)


# --- bounds


def test_sockets_are_counted_and_one_too_many_is_told(model: Model) -> None:
    with served(model, rows=1, sockets=1) as there:
        with Client(there):
            with Client(there) as late:
                assert late.first["error"]["code"] == "rate_limit_exceeded"
                with pytest.raises(ConnectionClosed) as closed:
                    late.event()
            assert closed.value.rcvd and closed.value.rcvd.code == 1013
        until(lambda: not there.server.sockets)
        with Client(there) as later:
            assert later.first["type"] == "session.created"


def test_a_client_that_goes_in_the_middle_frees_all_that_it_had(there: Served) -> None:
    clients = [Client(there) for _ in range(4)]
    for client in clients:
        client.sound(encoded(spoken("lamp", "digits")))
        client.until("input_audio_buffer.speech_started")
    for client in clients[2:]:
        client.socket.socket.shutdown(socket.SHUT_RDWR)
    for client in clients:
        client.stack.close()
    until(lambda: not there.server.sockets and not there.server.work.inside)


def test_one_that_says_nothing_is_closed(model: Model) -> None:
    with served(model, rows=1, idle=0.3) as there, Client(there) as client:
        assert client.event()["error"]["code"] == "idle_timeout"
        with pytest.raises(ConnectionClosed):
            client.event()


def test_sound_that_may_not_wait_is_refused_and_what_came_before_is_kept(
    there: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(line, "WAITING", 3.0)
    with Client(there) as client:
        client.setup(turn_detection=None)
        client.sound(encoded(soundfile.read(clip("lamp"), dtype="float32")[0]), size=200_000)
        client.sound(encoded(quiet(2)), size=200_000)
        assert client.event()["error"]["code"] == "input_audio_buffer_full"
        client.say("input_audio_buffer.commit")
        assert client.until(f"{SAID}.completed")[-1]["transcript"] == LAMP


def test_a_final_waits_for_its_place_in_a_full_queue(model: Model) -> None:
    with served(model, rows=1, waiting=0, timeout=2.0) as there:
        work = there.server.work
        with Client(there) as client:
            client.setup(turn_detection=None)
            for freed in (True, False):
                work.most = 0
                client.sound(encoded(soundfile.read(clip("lamp"), dtype="float32")[0]))
                client.say("input_audio_buffer.commit")
                client.until("conversation.item.added")
                time.sleep(0.3)
                if freed:
                    work.most = 1
                    assert client.until(f"{SAID}.completed")[-1]["transcript"] == LAMP
                else:
                    failed = client.event()
                    assert failed["type"] == f"{SAID}.failed"
                    assert failed["error"]["code"] == "rate_limit_exceeded"


def test_a_client_that_does_not_read_is_left(
    there: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "SENT", 1.0)
    host, port = there.url.removeprefix("http://").split(":")
    plain = socket.socket()
    plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    plain.connect((host, int(port)))
    plain.settimeout(5)
    lines = [
        *("GET /v1/realtime HTTP/1.1", f"Host: {host}:{port}", "Upgrade: websocket"),
        *("Connection: Upgrade", "Sec-WebSocket-Version: 13"),
        "Sec-WebSocket-Key: " + base64.b64encode(bytes(16)).decode(),
    ]
    plain.sendall("\r\n".join([*lines, "", ""]).encode())
    until(lambda: there.server.sockets == 1)
    asked = json.dumps({"type": "session.update", "session": {"type": "transcription"}}).encode()
    frame = bytes([0x81, 0x80 | len(asked)]) + bytes(4) + asked  # masked with zeros
    end = time.monotonic() + 60
    with plain, contextlib.suppress(OSError):
        while there.server.sockets and time.monotonic() < end:
            plain.sendall(200 * frame)
    until(lambda: not there.server.sockets)
    with Client(there) as other:
        assert other.setup()["type"] == "session.updated"
