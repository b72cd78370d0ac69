"""`POST /v1/audio/transcriptions` and `/v1/audio/translations`."""

from __future__ import annotations

import zlib
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

from starlette.datastructures import UploadFile
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from alm.generation import keywords
from alm.generation.answers import Answer
from alm.generation.turn import Question
from alm.serve.endpoints.events import streamed, whole
from alm.serve.endpoints.fields import Fields
from alm.serve.inside.asking import in_context, task_of, usage
from alm.serve.inside.server import Server, check_kind, extra, skip_silent
from alm.serve.refused import Refused
from alm.text import segments

JSON, TEXT, SRT, VTT, VERBOSE = FORMATS = "json", "text", "srt", "vtt", "verbose_json"
MOST_FIELDS, FIELD_BYTES = 40, 2**16


@dataclass(frozen=True)
class Asked:
    """A request, checked."""

    audio: bytes
    task: str
    language: str
    form: str
    times: tuple[str, ...]
    stream: bool
    options: dict[str, Any]


async def transcribe(server: Server, request: Request) -> Response:
    """What is said, in its language."""
    return await _answered(server, request, "transcribe")


async def translate(server: Server, request: Request) -> Response:
    """What is said, in English."""
    return await _answered(server, request, "translate")


async def _answered(server: Server, request: Request, task: str) -> Response:
    asked = await _asked(server, request, task)
    conversation = server.model.chat(**asked.options)

    def run() -> Generator[str, None, Answer]:
        question = Question(asked.task, [asked.audio])
        (answer,) = yield from conversation.turn([question], listening=True)
        server.metrics.answer(answer)
        return answer

    job = server.work.submit(run)
    if not asked.stream:
        return _formed(server, asked, await whole(server.work, job, request))

    def done(answer: Answer) -> list[dict[str, Any]]:
        kind, alm = "transcript.text.done", extra(answer, timed=True)
        return [{"type": kind, "text": answer.text, "usage": usage(answer), "alm": alm}]

    def delta(text: str) -> dict[str, Any]:
        return {"type": "transcript.text.delta", "delta": text}

    return await streamed(server.work, job, request, delta, [], done)


async def _asked(server: Server, request: Request, task: str) -> Asked:
    """The request, every field of it done or refused.

    Raises:
        Refused: see there.
    """
    check_kind(request, "multipart/form-data")
    async with request.form(max_files=1, max_fields=MOST_FIELDS, max_part_size=FIELD_BYTES) as form:
        given = {name: _one_or_all(form.getlist(name)) for name in form}
        file = given.pop("file", None)
        if not isinstance(file, UploadFile):
            raise Refused(400, "file is wanted: the clip, uploaded as a file", param="file")
        audio = await file.read()
    for name, value in given.items():
        if isinstance(value, UploadFile):
            raise Refused(400, f"{name:.80} is no field for a file", param=name[:80])
    fields = Fields(given)
    server.check_model(fields)
    form_, times = _form(server, fields)
    stream = fields.flag("stream")
    if stream and form_ not in (JSON, TEXT):
        raise Refused(400, f"a stream is of text, not of {form_}", param="response_format")
    context = fields.text("prompt")
    fields.only("chunking_strategy", "auto")
    fields.only("include[]")
    fields.only("include")
    skip_silent(fields)
    language = fields.text("language")
    joins, gate = fields.one_of("joins", "exact", "quiet"), fields.maybe("gate")
    options = server.decoding(fields) | {"joins": joins, "gate": gate}
    fields.end()
    name = task_of(server, task, language)
    name, options["verbatim"] = in_context(server, name, context)
    bounds = {"language": language, "max_audio_seconds": server.settings.audio_seconds}
    return Asked(audio, name, language, form_, times, stream, options | bounds)


def _one_or_all(values: list[Any]) -> Any:
    return values[0] if len(values) == 1 else values


def _form(server: Server, fields: Fields) -> tuple[str, tuple[str, ...]]:
    """The response's format, and which times it shall have."""
    form = fields.one_of("response_format", *FORMATS)
    times = fields.texts("timestamp_granularities", bracketed=True)
    for name in times:
        if name not in ("segment", "word"):
            raise Refused(
                400,
                f"timestamp_granularities are segment and word, not {name!r:.60}",
                param="timestamp_granularities",
            )
    if times and form != VERBOSE:
        raise Refused(
            400, f"timestamp_granularities want response_format={VERBOSE}", param="response_format"
        )
    if "word" in times and server.model.parts.aligner is None:
        raise Refused(
            400,
            "words have times where an aligner is beside the model: alm serve --align DIR",
            param="timestamp_granularities",
        )
    return form, tuple(times or ("segment",))


def _formed(server: Server, asked: Asked, answer: Answer) -> Response:
    """The answer in the format that was asked for."""
    if asked.form == TEXT:
        return PlainTextResponse(answer.text + "\n")
    if asked.form in (SRT, VTT):
        write, kind = (
            (segments.srt, "text/plain") if asked.form == SRT else (segments.vtt, "text/vtt")
        )
        return PlainTextResponse(write(answer.segments), media_type=kind)
    plain: dict[str, Any] = {"text": answer.text, "usage": usage(answer), "alm": extra(answer)}
    if asked.form == VERBOSE:
        plain |= _verbose(server, asked, answer)
    return JSONResponse(plain)


def _verbose(server: Server, asked: Asked, answer: Answer) -> dict[str, Any]:
    """OpenAI's verbose fields. What is not known of a segment is null."""
    options = server.model.options(**keywords.split(asked.options)[1])
    encode = server.model.parts.tokenizer.encode
    found: dict[str, Any] = {
        "task": "translate" if asked.task == "translate_en" else "transcribe",
        "language": answer.language or asked.language,
        "duration": answer.audio_seconds,
    }
    if "segment" in asked.times:
        found["segments"] = [
            {
                "id": i,
                "seek": round(100 * segment.start),  # Whisper's frames of 10 ms
                "start": segment.start,
                "end": segment.end,
                "text": segment.text,
                "tokens": encode(segment.text, add_special_tokens=False).ids,
                "temperature": options.temperature if options.do_sample else 0.0,
                "avg_logprob": None,
                "compression_ratio": _compression(segment.text),
                "no_speech_prob": None,
                **({"speaker": segment.speaker} if segment.speaker else {}),
            }
            for i, segment in enumerate(answer.segments)
        ]
    if "word" in asked.times:
        found["words"] = [
            {"word": word.text, "start": word.start, "end": word.end}
            for word in segments.words_of(answer.segments)
        ]
    return found


def _compression(text: str) -> float:
    """Bytes of the text to those that zlib makes of it, as openai/whisper has it."""
    data = text.encode()
    return round(len(data) / len(zlib.compress(data)), 4) if data else 0.0
