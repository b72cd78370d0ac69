"""What a server does not do is refused by name, in OpenAI's error object, and nothing is lost."""

from __future__ import annotations

import io
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import openai
import pytest
import requests
import soundfile

import alm
from alm.cli import alm_commands, exit_status
from alm.generation.model import Model
from tests.runtime.serve.serving import NAME, Served, audio, served, text, user

KEY = "a key of some length"


def wav(samples: int = 8000) -> bytes:
    file = io.BytesIO()
    dice = np.random.default_rng(0)
    soundfile.write(file, 0.1 * dice.standard_normal(samples), 16000, format="WAV")
    return file.getvalue()


@pytest.fixture(scope="module")
def model(artifacts: Path) -> Model:
    return alm.load(artifacts, threads=1, together=2)


@pytest.fixture(scope="module")
def there(model: Model) -> Iterator[Served]:
    with served(model, upload_bytes=2**20, audio_seconds=6) as running:
        yield running


def completed(there: Served, **options: Any) -> Any:
    asked: Any = {"model": NAME, "messages": [user(audio(wav()), text("Why?"))], "max_tokens": 4}
    return there.client().chat.completions.create(**asked | options)


def transcribed(there: Served, **options: Any) -> Any:
    return there.client().audio.transcriptions.create(
        **{"model": NAME, "file": ("a.wav", wav())} | options
    )


Error = openai.BadRequestError


@pytest.mark.parametrize(
    ("options", "kind", "param", "says"),
    [
        ({"model": "gpt-4o"}, openai.NotFoundError, "model", "no model 'gpt-4o' here"),
        ({"response_format": {"type": "xml"}}, Error, "response_format", "'xml' is not known"),
        (
            {"response_format": {"type": "json_object"}, "stop": ["x"]},
            *(Error, "stop", "would cut what response_format wants"),
        ),
        ({"n": 2}, Error, "n", "n=2 is not done here"),
        ({"logprobs": True}, Error, "logprobs", "not done"),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, Error, "tools", "not done"),
        ({"frequency_penalty": 0.5}, Error, "frequency_penalty", "not done"),
        ({"logit_bias": {"5": 3}}, Error, "logit_bias", "not done"),
        ({"modalities": ["text", "audio"]}, Error, "modalities", "not done"),
        ({"reasoning_effort": "low"}, Error, "reasoning_effort", "not done"),
        ({"store": True}, Error, "store", "not done"),
        ({"temperature": 3}, Error, "temperature", "from 0 to 2, not 3"),
        ({"top_p": -1}, Error, "top_p", "from 0 to 1"),
        ({"max_tokens": 0}, Error, "max_tokens", "a whole number"),
        ({"max_tokens": 5, "max_completion_tokens": 6}, Error, "max_tokens", "one field"),
        ({"stop": ["a"] * 5}, Error, "stop", "at most 4"),
        ({"stop": [""]}, Error, None, "stop is up to 16 texts"),
        ({"seed": "x"}, Error, "seed", "a whole number"),
        ({"stream_options": {"include_usage": True}}, Error, "stream_options", "beside stream"),
        ({"extra_body": {"wisdom": 3}}, Error, "wisdom", "unknown field 'wisdom'"),
        ({"messages": []}, Error, "messages", "a list of 1 to 1000"),
        (
            {"messages": [{"role": "system", "content": "Be kind."}, user(text("?"))]},
            Error,
            None,
            "has no place for a system",
        ),
        (
            {"messages": [{"role": "tool", "content": "x"}]},
            Error,
            None,
            "system, user or assistant",
        ),
        ({"messages": [{"role": "assistant", "content": "x"}]}, Error, None, "answers nothing"),
        (
            {"messages": [user(text("Hm?")), {"role": "assistant", "content": "x"}]},
            *(Error, "messages", "the last message is wanted from the user"),
        ),
        ({"messages": [user(audio(wav()))]}, Error, None, "no text says what to do"),
        ({"messages": [user(text("<audio>?"))]}, Error, None, "may not be said"),
        ({"messages": [user({"type": "image_url"})]}, Error, None, "a part of type text, input"),
        (
            {"messages": [user({"type": "input_audio", "input_audio": {"data": "#"}})]},
            *(Error, "messages[0].content[0].input_audio", "a file in base64"),
        ),
        (
            {"messages": [user({"type": "audio_url", "audio_url": {"url": "http://a/b.wav"}})]},
            *(Error, "messages[0].content[0].audio_url", "a URL with the file in it"),
        ),
        ({"messages": [user(audio(b"no sound"), text("?"))]}, Error, None, "is not audio"),
        ({"messages": [user(audio(wav(7 * 16000)), text("?"))]}, Error, None, "at most 6 s"),
    ],
)
def test_a_chat_that_is_not_done(
    options: Any, kind: Any, param: str | None, says: str, there: Served
) -> None:
    with pytest.raises(kind) as caught:
        completed(there, **options)
    body = caught.value.body
    assert says in body["message"] and body["type"] == "invalid_request_error"
    assert param is None or body["param"] == param


@pytest.mark.parametrize(
    ("parts", "options", "says"),
    [
        ([audio(wav(7 * 16000))], {}, "and at most 6 s was wanted; cut it"),
        ([audio(wav(5 * 16000)), audio(wav())], {}, "can it be answered in pieces; cut it"),
        (
            [audio(wav(5 * 16000))],
            {"response_format": {"type": "json_object"}},
            "with a schema of its own; give shorter clips",
        ),
    ],
)
def test_a_sentence_tells_a_client_what_a_client_can_do(
    parts: list[Any], options: dict[str, Any], says: str, there: Served
) -> None:
    with pytest.raises(Error) as caught:
        completed(there, messages=[user(*parts, text("Why?"))], **options)
    said = str(caught.value.message)
    assert said.endswith(says) and "--" not in said


def test_a_note_tells_a_client_what_a_client_can_do(there: Served) -> None:
    file = io.BytesIO()
    soundfile.write(file, np.zeros(16_000), 16_000, format="WAV")
    assert completed(there).alm["notes"][-1].endswith("; more: max_tokens")
    said = transcribed(there, file=("a.wav", file.getvalue()))
    assert said.alm["notes"][-1].endswith("; to ask anyway: gate=false")


@pytest.mark.parametrize(
    ("options", "param", "says"),
    [
        ({"prompt": "names"}, "prompt", "take no words of context"),
        ({"language": "tlh"}, "language", "knows no language 'tlh'"),
        ({"response_format": "xml"}, "response_format", "one of json, text, srt"),
        ({"timestamp_granularities": ["word"]}, "response_format", "verbose_json"),
        (
            {"timestamp_granularities": ["word"], "response_format": "verbose_json"},
            *("timestamp_granularities", "alm serve --align DIR"),
        ),
        ({"include": ["logprobs"]}, "include[]", "not done here"),
        ({"chunking_strategy": {"type": "server_vad"}}, None, "chunking_strategy"),
        ({"stream": True, "response_format": "srt"}, "response_format", "a stream is of text"),
        ({"file": ("a.wav", b"no sound")}, None, "is not audio that can be read"),
        ({"file": ("../../etc/passwd", b"")}, None, "empty"),
        ({"temperature": 9}, "temperature", "from 0 to 2"),
        ({"extra_body": {"wisdom": 3}}, "wisdom", "unknown field"),
    ],
)
def test_a_transcription_that_is_not_done(
    options: Any, param: str | None, says: str, there: Served
) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        transcribed(there, **options)
    body = caught.value.body
    assert says in body["message"]  # pyright: ignore
    assert param is None or body["param"] == param  # pyright: ignore


def test_a_translation_wants_a_task_for_it(there: Served) -> None:
    url = f"{there.url}/v1/audio/translations"
    said = requests.post(url, files={"file": ("a.wav", wav())}, timeout=9)
    assert said.status_code == 400 and "no task translate_en" in said.json()["error"]["message"]


def test_words_that_are_refused_in_a_stream_have_a_status(there: Served) -> None:
    with pytest.raises(openai.BadRequestError, match="is not audio"):
        completed(there, messages=[user(audio(b"no"), text("?"))], stream=True)


@pytest.mark.parametrize("chunked", [False, True])
def test_too_large_a_request(chunked: bool, there: Served) -> None:
    body = b"x" * (2**20 + 1)
    kind = {"Content-Type": "application/json"}
    data: Any = iter([body]) if chunked else body
    said = requests.post(f"{there.url}/v1/chat/completions", data=data, headers=kind, timeout=9)
    assert said.status_code == 413 and "at most 1 MiB" in said.json()["error"]["message"]


@pytest.mark.parametrize(
    ("path", "body", "kind", "status", "says"),
    [
        ("chat/completions", b"{", "application/json", 400, "no JSON"),
        ("chat/completions", b"[]", "application/json", 400, "a JSON object"),
        ("chat/completions", b"[" * 99_999, "application/json", 400, "no JSON"),
        ("chat/completions", b'{"\\ud800": 1}', "application/json", 400, "UTF-8"),
        ("chat/completions", b'{"\xed\xa0\x80": 1}', "application/json", 400, "UTF-8"),
        (
            "chat/completions",
            b'{"messages": [{"role": "user", "content": "x"}], "temperature": 1'
            + b"0" * 400
            + b"}",
            "application/json",
            400,
            "temperature",
        ),
        (
            "chat/completions",
            b'{"messages": [{"role": "user", "content": "x"}], "seed": "--1"}',
            "application/json",
            400,
            "seed",
        ),
        (
            "chat/completions",
            b'{"messages": [{"role": "user", "\\u0000": 1}]}',
            "application/json",
            400,
            "\N{REPLACEMENT CHARACTER} is not known",
        ),
        ("chat/completions", b"{}", "text/plain", 415, "application/json"),
        ("chat/completions", b"{}", "application/json", 400, "messages"),
        ("audio/transcriptions", b"x", "application/json", 415, "multipart/form-data"),
        ("audio/transcriptions", b"x", "multipart/form-data", 400, "boundary"),
        ("audio/transcriptions", b"x", "multipart/form-data; boundary=y", 400, ""),
        ("nothing", b"", "application/json", 404, "Not Found"),
    ],
)
def test_bodies_that_are_none(
    path: str, body: bytes, kind: str, status: int, says: str, there: Served
) -> None:
    headers = {"Content-Type": kind}
    said = requests.post(f"{there.url}/v1/{path}", data=body, headers=headers, timeout=9)
    assert said.status_code == status, said.text
    assert says.lower() in said.json()["error"]["message"].lower()


def test_two_files_and_fields_that_are_files(there: Served) -> None:
    url = f"{there.url}/v1/audio/transcriptions"
    two = [("file", ("a.wav", wav())), ("file", ("b.wav", wav()))]
    assert requests.post(url, files=two, timeout=9).status_code == 400
    odd = [("model", ("a.wav", b"demo"))]
    said = requests.post(url, files=odd, timeout=9)  # type: ignore[arg-type]
    assert said.status_code == 400 and "file is wanted" in said.json()["error"]["message"]


def test_only_its_own_name_and_pages_may_ask(there: Served) -> None:
    url = f"{there.url}/v1/models"
    foreign = requests.get(url, headers={"Host": "evil.example"}, timeout=9)
    assert foreign.status_code == 403 and "answers to localhost" in foreign.text
    page = requests.get(url, headers={"Origin": "https://evil.example"}, timeout=9)
    assert page.status_code == 403 and "Access-Control-Allow-Origin" not in page.headers
    assert requests.get(url, headers={"Origin": "http://["}, timeout=9).status_code == 403
    assert requests.get(url, headers={"Origin": there.url}, timeout=9).status_code == 200


def test_a_named_origin_may_ask_and_read(model: Model) -> None:
    mine = {"Origin": "https://mine.example"}
    with served(model, origins=(mine["Origin"],), api_key=KEY) as running:
        url = f"{running.url}/v1/models"
        before = requests.options(
            url, headers=mine | {"Access-Control-Request-Headers": "authorization"}, timeout=9
        )
        assert before.status_code == 204
        assert before.headers["Access-Control-Allow-Origin"] == mine["Origin"]
        assert before.headers["Access-Control-Allow-Headers"] == "authorization"
        given = mine | {"Authorization": f"Bearer {KEY}"}
        said = requests.get(url, headers=given, timeout=9)
        assert said.headers["Access-Control-Allow-Origin"] == mine["Origin"]


def test_a_wrong_key(model: Model) -> None:
    with served(model, api_key=KEY) as running:
        with pytest.raises(openai.AuthenticationError):
            running.client("wrong").models.list()
        for given in (KEY[:-1], f"{KEY}x", "", KEY.upper(), "\xe9\xff"):
            header = {"Authorization": f"Bearer {given}".encode("latin-1")}
            said = requests.get(f"{running.url}/v1/models", headers=header, timeout=9)
            assert said.status_code == 401 and said.json()["error"]["code"] == "invalid_api_key"
        header = {"Authorization": f"Basic {KEY}"}
        assert (
            requests.get(f"{running.url}/v1/models", headers=header, timeout=9).status_code == 401
        )
        assert requests.get(f"{running.url}/metrics", timeout=9).status_code == 401
        assert requests.get(f"{running.url}/health", timeout=9).status_code == 200
        assert running.client(KEY).models.list().data[0].id == NAME
        foreign = {"Host": "box.example", "Authorization": f"Bearer {KEY}"}
        assert requests.get(f"{running.url}/v1/models", headers=foreign, timeout=9).ok


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--host", "0.0.0.0"], "it wants a key: --api-key KEY"),
        (["--api-key", "short"], "at least 8 characters"),
        (["--origin", "example.org"], "https://example.org"),
        (["--host", "no.such.host.invalid", "--api-key", KEY], "nothing can listen on"),
        (["--name", " "], "a model's name"),
        (["--option", "num_beams=x"], "num_beams"),
        (["--max-audio-seconds", "0"], "max-audio-seconds"),
    ],
)
def test_a_server_that_cannot_start(
    words: list[str], says: str, artifacts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["serve", str(artifacts), "--port", "0", *words]
    assert exit_status.run(alm_commands.app, given, name="alm") != 0
    said = capsys.readouterr().err
    assert says in said and said.startswith("error: ") and said.count("\n") == 1


def test_a_port_that_is_taken(artifacts: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = str(other.getsockname()[1])
        assert exit_status.run(alm_commands.app, ["serve", str(artifacts), "--port", port]) != 0
    assert f"nothing can listen on 127.0.0.1:{port} (Address already in use)" in (
        capsys.readouterr().err
    )


def test_without_its_packages_the_command_says_what_to_install(artifacts: Path) -> None:
    code = (
        "import sys; sys.modules['uvicorn'] = None\n"
        "from alm.cli.alm_commands import main; sys.exit(main())"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code, "serve", str(artifacts)], capture_output=True, text=True
    )
    assert ended.returncode == 1
    assert "pip install 'alm-edge[serve]'" in ended.stderr and "Traceback" not in ended.stderr
