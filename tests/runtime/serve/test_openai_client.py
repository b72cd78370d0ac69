"""OpenAI's own client, with and without streaming, sync and async, over the demo's clips."""

from __future__ import annotations

import asyncio
import io
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import openai
import pytest
import requests
import soundfile
from openai.types.audio import TranscriptionSegment

import alm
from alm.generation.model import Model
from demo.clips import EXAMPLES
from tests.runtime.serve.serving import NAME, Served, audio, clip, served, text, user

WORDS = {"lamp": "turn on the lamp in the kitchen", "digits": "four two eight eight one"}


@pytest.fixture(scope="module")
def model(demo: Path) -> Model:
    return alm.load(demo, threads=1, together=4)


@pytest.fixture(scope="module")
def there(model: Model) -> Iterator[Served]:
    with served(model, names=(NAME, "whisper-1")) as running:
        yield running


def transcribed(there: Served, name: str = "lamp", **options: Any) -> Any:
    with clip(name).open("rb") as file:
        return there.client().audio.transcriptions.create(**{"model": NAME, "file": file} | options)


def completed(there: Served, messages: Any, **options: Any) -> Any:
    return there.client().chat.completions.create(**{"model": NAME, "messages": messages} | options)


@pytest.mark.parametrize("name", WORDS)
def test_what_is_said_is_written_down(name: str, there: Served) -> None:
    assert transcribed(there, name).text == WORDS[name]


@pytest.mark.parametrize("name", WORDS)
def test_it_streams(name: str, there: Served) -> None:
    events = list(transcribed(there, name, stream=True))
    deltas = [event.delta for event in events if event.type == "transcript.text.delta"]
    assert "".join(deltas) == WORDS[name] and len(deltas) > 2
    assert events[-1].type == "transcript.text.done" and events[-1].text == WORDS[name]
    assert events[-1].usage.input_token_details.audio_tokens > 0


def test_every_form_of_a_transcription(there: Served) -> None:
    words = WORDS["lamp"]
    assert transcribed(there, response_format="text") == f"{words}\n"
    srt = transcribed(there, response_format="srt")
    assert srt == f"1\n00:00:00,000 --> 00:00:02,007\n{words}\n"
    assert transcribed(there, response_format="vtt").startswith("WEBVTT\n\n00:00:00.000 --> ")
    verbose = transcribed(there, response_format="verbose_json")
    (segment,) = verbose.segments
    assert (verbose.text, verbose.task, round(verbose.duration, 2)) == (words, "transcribe", 2.01)
    assert (segment.id, segment.seek, segment.start, segment.text) == (0, 0, 0.0, words)
    assert segment.tokens and 0.5 < segment.compression_ratio < 1.5
    assert {*TranscriptionSegment.model_fields} <= segment.model_fields_set
    assert verbose.alm["timings_ms"]["total"] > 0


def test_silence_is_no_words(there: Served) -> None:
    file = io.BytesIO()
    soundfile.write(file, np.zeros(32_000, np.float32), 16_000, format="WAV")
    silence = ("a.wav", file.getvalue())
    said = transcribed(there, file=silence)
    assert said.text == "" and said.alm["stop_reason"] == "no_speech" and said.alm["notes"]
    events = list(transcribed(there, file=silence, stream=True))
    assert [event.type for event in events] == ["transcript.text.done"]
    asked = transcribed(there, file=silence, extra_body={"gate": "false", "joins": "quiet"})
    assert asked.alm["stop_reason"] == "eos"


def test_sampling_is_repeated_by_its_seed(there: Served) -> None:
    hot: Any = {"temperature": 1.5, "extra_body": {"seed": 7}}
    first = transcribed(there, **hot).text
    assert first == transcribed(there, **hot).text
    assert first == transcribed(there, temperature=1.5, extra_body={"seed": 7 + 2**32}).text


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.file)
def test_clips_are_talked_about(example: Any, there: Served) -> None:
    said = completed(there, [user(audio(example.file[:-4]), text(example.task))])
    assert said.choices[0].message.content == example.right
    assert said.choices[0].finish_reason == "stop" and said.object == "chat.completion"
    assert said.usage.total_tokens == said.usage.prompt_tokens + said.usage.completion_tokens
    assert said.usage.prompt_tokens_details.audio_tokens > 0


def test_a_conversation_goes_on_and_streams(there: Served, model: Model) -> None:
    messages = [user(audio("siren"), text("describe"))]
    first = completed(there, messages).choices[0].message.content
    messages += [{"role": "assistant", "content": first}, user(audio("lamp"), text("transcribe"))]
    chunks = list(completed(there, messages, stream=True, stream_options={"include_usage": True}))
    said = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    chat = model.chat()
    chat.ask("describe", clip("siren"))
    right = chat.ask("transcribe", clip("lamp"))
    assert said == right.text
    assert chunks[0].choices[0].delta.role == "assistant"
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "stop"
    assert chunks[-1].choices == [] and chunks[-1].usage.completion_tokens == len(right.token_ids)
    # What the first answer left in the cache was not computed again.
    assert chunks[-1].usage.prompt_tokens_details.cached_tokens == right.cached_tokens > 60


def test_a_history_that_was_never_answered_here_is_read(there: Served, model: Model) -> None:
    told = [
        user(audio("siren"), text("describe")),
        {"role": "assistant", "content": "a row of clicks"},
        user(text("describe")),
    ]
    chat = model.chat()
    chat.tell("describe", clip("siren"), answer="a row of clicks")
    right = chat.ask("describe").text
    assert completed(there, told).choices[0].message.content == right


def test_texts_and_clips_keep_their_order(there: Served, model: Model) -> None:
    parts = [text("Is "), audio("lamp"), text(" like "), audio("digits"), text("?")]
    said = completed(there, [user(*parts)]).choices[0].message.content
    clips = [clip("lamp"), clip("digits")]
    assert said == model.generate([clips], "Is <audio> like <audio>?")[0].text
    together = [user(audio("lamp")), user(text("transcribe"))]
    assert completed(there, together).choices[0].message.content == WORDS["lamp"]


def test_lengths_and_stops(there: Served) -> None:
    asked = [user(audio("lamp"), text("transcribe"))]
    short = completed(there, asked, max_completion_tokens=2).choices[0]
    assert short.finish_reason == "length" and WORDS["lamp"].startswith(short.message.content)
    stopped = completed(there, asked, stop=["lamp", "nothing"]).choices[0]
    assert stopped.finish_reason == "stop" and stopped.message.content.strip() == "turn on the"


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_follows_a_schema(stream: bool, there: Served) -> None:
    words = {"type": "string", "enum": ["lamp", "light", "volume"]}
    schema = {
        "type": "object",
        "properties": {"what": words, "on": {"type": "boolean"}},
        "required": ["what", "on"],
        "additionalProperties": False,
    }
    form = {"type": "json_schema", "json_schema": {"name": "command", "schema": schema}}
    asked = [user(audio("lamp"), text("transcribe"))]
    said = completed(there, asked, response_format=form, stream=stream, max_tokens=60)
    if stream:
        content = "".join(chunk.choices[0].delta.content or "" for chunk in said)
    else:
        content = said.choices[0].message.content
        assert said.choices[0].finish_reason == "stop"
    found = json.loads(content)
    assert {*found} == {"what", "on"} and found["what"] in words["enum"]
    assert isinstance(found["on"], bool)


def test_a_long_clip_is_answered_window_by_window(
    there: Served, model: Model, tmp_path: Path
) -> None:
    pcm, rate = soundfile.read(clip("lamp"), dtype="float32")
    long = np.concatenate([np.concatenate([pcm, np.zeros(rate, np.float32)])] * 5)
    soundfile.write(tmp_path / "long.wav", long, rate)
    data = (tmp_path / "long.wav").read_bytes()
    said = completed(there, [user(audio(data), text("transcribe"))])
    right = model.generate(tmp_path / "long.wav", "transcribe")
    assert said.alm["windows"] == right.windows == 2
    assert said.choices[0].message.content == right.text


def test_the_async_client(there: Served) -> None:
    async def ask() -> list[str]:
        url = f"{there.url}/v1"
        async with openai.AsyncOpenAI(base_url=url, api_key="x", max_retries=0) as client:
            calls = [
                client.audio.transcriptions.create(model=NAME, file=clip(name).read_bytes())
                for name in WORDS
            ]
            whole = [each.text for each in await asyncio.gather(*calls)]
            asked = [user(audio("lamp"), text("transcribe"))]
            stream = await client.chat.completions.create(model=NAME, messages=asked, stream=True)
            pieces = [chunk.choices[0].delta.content or "" async for chunk in stream]
            return [*whole, "".join(pieces)]

    assert asyncio.run(ask()) == [*WORDS.values(), WORDS["lamp"]]


def test_models_and_health(there: Served) -> None:
    client = there.client()
    assert [model.id for model in client.models.list()] == [NAME, "whisper-1"]
    assert client.models.retrieve("whisper-1").owned_by == "alm-edge"
    assert transcribed(there, model="whisper-1").text == WORDS["lamp"]
    assert requests.get(f"{there.url}/health", timeout=9).json()["status"] == "ok"


def series(page: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Samples of Prometheus' text format by name and labels; any other line fails."""
    found, kinds = {}, set()
    for line in page.splitlines():
        if head := re.fullmatch(r"# (HELP|TYPE) (\w+) .+", line):
            kinds.add(head[2])
            continue
        sample = re.fullmatch(r"(\w+?)(?:\{(.*)\})? ([0-9.e+-]+)", line)
        assert sample, line
        name = sample[1]
        assert name in kinds or name.rsplit("_", 1)[0] in kinds, line
        labels = tuple(re.findall(r'(\w+)="([^"]*)"', sample[2] or ""))
        assert (name, labels) not in found
        found[name, labels] = float(sample[3])
    return found


def test_prometheus_can_read_what_is_counted(there: Served) -> None:
    transcribed(there)
    found = series(requests.get(f"{there.url}/metrics", timeout=9).text)
    labels = (("endpoint", "/v1/audio/transcriptions"), ("status", "200"))
    assert found["alm_requests_total", labels] >= 1
    assert found["alm_audio_seconds_total", ()] > 2
    count = found["alm_request_seconds_count", ()]
    assert count == found["alm_request_seconds_bucket", (("le", "+Inf"),)] >= 1


def test_a_system_message_opens_the_conversation(demo: Path, tmp_path: Path) -> None:
    folder = tmp_path / "own"
    shutil.copytree(demo, folder)
    manifest = folder / "manifest.json"
    plain = json.loads(manifest.read_text())
    plain["prompt"]["system"] = "SYSTEM: {}\n"
    manifest.write_text(json.dumps(plain))
    model = alm.load(folder, threads=1, together=2)
    asked = user(audio("lamp"), text("transcribe"))
    with served(model) as there:
        said = completed(there, [{"role": "system", "content": "Be brief."}, asked])
        bare = completed(there, [{"role": "developer", "content": " "}, asked])
        assert said.usage.prompt_tokens > bare.usage.prompt_tokens
        right = model.generate(clip("lamp"), "transcribe", system="Be brief.")
        assert said.choices[0].message.content == right.text
        late = [asked, {"role": "system", "content": "Be brief."}, asked]
        with pytest.raises(openai.BadRequestError, match="a system message comes first"):
            completed(there, late)
