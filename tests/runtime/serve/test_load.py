"""Many clients, slow ones and those that go away: nobody is lost, nobody is answered wrongly."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import openai
import pytest
import requests

import alm
from alm.generation.model import Model
from alm.serve.inside.kept import Exchange, Kept
from tests.products import LONG
from tests.runtime.serve.serving import NAME, Served, audio, clip, served, text, user

WORDS = {"lamp": "turn on the lamp in the kitchen", "digits": "four two eight eight one"}
SOAK = 60 if LONG else 20  # seconds
ALM = "import sys; from alm.cli.alm_commands import main; sys.exit(main())"


@pytest.fixture(scope="module")
def model(demo: Path) -> Model:
    return alm.load(demo, threads=1, together=4)


def until(ready: Any, seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.01)


def ask(there: Served, name: str) -> str:
    file = ("clip.wav", clip(name).read_bytes())
    return there.client().audio.transcriptions.create(model=NAME, file=file).text


def test_fifty_clients_at_once_where_eight_have_room(model: Model) -> None:
    with served(model, rows=4, waiting=4) as there:
        barrier = threading.Barrier(50)

        def one(i: int) -> tuple[str, str]:
            barrier.wait()
            try:
                return "answered", ask(there, list(WORDS)[i % 2])
            except openai.RateLimitError as error:
                assert int(error.response.headers["Retry-After"]) >= 1
                assert "try again in" in str(error)
                return "refused", ""

        with ThreadPoolExecutor(50) as pool:
            got = list(pool.map(one, range(50)))
        counts = Counter(kind for kind, _ in got)
        assert counts["answered"] >= 8 and counts["refused"] > 0
        answered = [(i, said) for i, (kind, said) in enumerate(got) if kind == "answered"]
        assert all(said == list(WORDS.values())[i % 2] for i, said in answered)
        assert there.server.work.inside == 0 and ask(there, "lamp") == WORDS["lamp"]


@contextmanager
def started(folder: Path, *words: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """`alm serve` as a process, and its address."""
    line = [sys.executable, "-c", ALM, "serve", str(folder), "--port", "0", "--name", NAME]
    process = subprocess.Popen([*line, "--threads", "1", *words], stderr=subprocess.PIPE, text=True)
    assert process.stderr
    try:
        said = process.stderr.readline()
        assert said.startswith("http://127.0.0.1:"), said
        yield process, said.split()[0]
    finally:
        process.kill()
        process.wait()
        process.stderr.close()


def state(pid: int) -> tuple[int, int, int]:
    """Threads, descriptors and kilobytes of a process."""
    text = Path(f"/proc/{pid}/status").read_text()
    lines = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    return int(lines["Threads"]), len(os.listdir(f"/proc/{pid}/fd")), int(lines["VmRSS"].split()[0])


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads Linux' counters; GPU")
def test_twice_the_capacity_for_long_loses_nothing_and_grows_nothing(demo: Path) -> None:
    wrong: list[str] = []
    counts: Counter[int] = Counter()

    def client(url: str, i: int, end: float) -> None:
        name = list(WORDS)[i % 2]
        data = clip(name).read_bytes()
        with requests.Session() as session:
            while time.monotonic() < end:
                said = session.post(url, files={"file": ("a.wav", data)}, timeout=60)
                counts[said.status_code] += 1
                if said.status_code == 429:
                    time.sleep(0.05)
                elif said.json().get("text") != WORDS[name]:
                    wrong.append(said.text)

    with started(demo, "--rows", "4", "--waiting", "4") as (process, url):

        def soak(seconds: float) -> None:
            end = time.monotonic() + seconds
            with ThreadPoolExecutor(16) as pool:
                path = f"{url}/v1/audio/transcriptions"
                list(pool.map(lambda i: client(path, i, end), range(16)))

        soak(8)  # until everything that is made once was made
        before = state(process.pid)
        soak(SOAK)
        threads, files, kilobytes = state(process.pid)
        assert not wrong and {*counts} == {200, 429} and counts[200] > 20
        assert threads <= before[0] and files <= before[1] + 1
        assert kilobytes < 1.05 * before[2], (before, kilobytes)
        health = requests.get(f"{url}/health", timeout=9).json()
        assert health == {"status": "ok", "running": 0, "waiting": 0}


def test_whoever_goes_away_is_worked_for_no_longer(model: Model) -> None:
    with served(model, rows=1, waiting=4) as there:
        work = there.server.work
        asked = [user(audio("lamp"), text("transcribe"))]
        long: Any = {"max_tokens": 400, "extra_body": {"repetition_penalty": 2.0}, "stream": True}
        stream = there.client().chat.completions.create(model=NAME, messages=asked, **long)
        next(iter(stream))
        stream.close()
        body = json.dumps({"model": NAME, "messages": asked}).encode()
        head = (
            "POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        port = int(there.url.rsplit(":", 1)[1])
        for _ in range(3):
            with socket.create_connection(("127.0.0.1", port)) as gone:
                gone.sendall(head.encode() + body)
        until(lambda: work.inside == 0)
        assert ask(there, "digits") == WORDS["digits"]


def test_slow_clients_hurt_nobody(model: Model) -> None:
    with served(model) as there:
        port = int(there.url.rsplit(":", 1)[1])
        slow = [socket.create_connection(("127.0.0.1", port)) for _ in range(20)]
        for i, each in enumerate(slow):
            each.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\n"[: 20 + i])
        start = time.monotonic()
        assert ask(there, "lamp") == WORDS["lamp"] and time.monotonic() - start < 10
        for each in slow:
            each.close()


def test_an_answer_that_takes_too_long_is_ended(model: Model) -> None:
    # Less than a prompt takes: sound that was heard before is answered in ten milliseconds.
    with served(model, rows=1, timeout=1e-4) as there:
        with pytest.raises(openai.InternalServerError) as caught:
            ask(there, "lamp")
        assert caught.value.status_code == 504 and "no whole answer within" in str(caught.value)
        until(lambda: there.server.work.inside == 0)


def test_a_fault_of_ours_is_one_error_and_the_next_is_answered(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    with served(model) as there:
        with monkeypatch.context() as broken:
            broken.setattr(model, "chat", lambda **_: 1 / 0)
            with pytest.raises(openai.InternalServerError):
                ask(there, "lamp")
            asked = [user(text("describe"))]
            with pytest.raises(openai.InternalServerError, match="its log says why"):
                there.client().chat.completions.create(model=NAME, messages=asked)
        assert ask(there, "lamp") == WORDS["lamp"]


def test_conversations_are_forgotten_when_there_is_no_room(model: Model) -> None:
    chat = model.chat()
    chat.ask("describe", clip("siren"))
    size = chat.bytes
    assert size > 10_000
    kept = Kept(int(2.5 * size))
    told = [[Exchange(f"{i}", (b"clip",), "answer")] for i in range(4)]
    for each in told[:2]:
        kept.put(each, "", chat)
    assert kept.take(told[0], "other options") is None
    kept.put(told[2], "", chat)  # for which the first has to go
    assert kept.take(told[0], "") is None
    assert kept.bytes == 2 * size
    assert kept.take(told[1], "") is chat and kept.take(told[1], "") is None
    Kept(size - 1).put(told[0], "", chat)
    # Texts and clips are told apart where they meet.
    kept.put([Exchange("ab", (b"c",), "d")], "", chat)
    assert kept.take([Exchange("a", (b"bc",), "d")], "") is None


@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGINT])
def test_the_end_finishes_what_runs(sign: signal.Signals, demo: Path) -> None:
    with ExitStack() as clients, started(demo) as (process, url):
        there = Served(None, url, clients)  # type: ignore[arg-type]
        asked = [user(audio("lamp"), text("transcribe"))]
        stream = iter(
            there.client().chat.completions.create(model=NAME, messages=asked, stream=True)
        )
        chunks = [next(stream)]
        process.send_signal(sign)
        time.sleep(0.3)
        chunks += stream
        said = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
        assert said == WORDS["lamp"] and chunks[-1].choices[0].finish_reason == "stop"
        assert process.wait(20) in (0, 130, -sign)
        assert process.stderr and "Traceback" not in process.stderr.read()
        with pytest.raises(requests.ConnectionError):
            requests.get(f"{url}/health", timeout=5)
