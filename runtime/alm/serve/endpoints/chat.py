"""`POST /v1/chat/completions`: texts and clips in any order, several turns."""

from __future__ import annotations

import secrets
import time
from collections.abc import Generator, Sequence
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from alm.errors import AlmError
from alm.generation.answers import Answer
from alm.generation.turn import Question
from alm.grammar import openai_format
from alm.serve.endpoints.events import streamed, whole
from alm.serve.endpoints.fields import Fields
from alm.serve.endpoints.messages import conversation
from alm.serve.inside.kept import Exchange
from alm.serve.inside.server import Server, body, extra, skip_silent
from alm.serve.refused import Refused, because
from alm.timings import Stages

# Fields of OpenAI's that are not done, and the values that ask for nothing.
NOT_DONE: dict[str, tuple[Any, ...]] = {
    "audio": (),
    "frequency_penalty": (0, 0.0),
    "function_call": ("none", "auto"),
    "functions": ([],),
    "logit_bias": ({},),
    "logprobs": (False,),
    "modalities": (["text"],),
    "n": (1,),
    "parallel_tool_calls": (True, False),
    "prediction": (),
    "presence_penalty": (0, 0.0),
    "reasoning_effort": (),
    "tool_choice": ("none", "auto"),
    "tools": ([],),
    "top_logprobs": (0,),
    "verbosity": (),
    "web_search_options": (),
}
MOST_STOPS = 4  # as OpenAI has it


async def complete(server: Server, request: Request) -> Response:
    """The next message of a conversation."""
    given = await body(request)
    if not isinstance(given, dict):
        raise Refused(400, "the body is wanted as a JSON object")
    fields = Fields(given)
    name = server.check_model(fields)
    system, said = await run_in_threadpool(conversation, fields.take("messages"))
    if system.strip() and not server.model.manifest.facts.prompt.system:
        why = "this model's prompt has no place for a system message; say it in the user's"
        raise Refused(400, why, param="messages[0]")
    stream, with_usage = _stream(fields)
    bounds = _bounds(server, fields) | {"system": system}
    for field, harmless in NOT_DONE.items():
        fields.only(field, *harmless)
    skip_silent(fields)
    options = server.decoding(fields)
    fields.end()
    job = server.work.submit(lambda: _answered(server, said, bounds, options))
    reply = _Reply(name)
    if not stream:
        return JSONResponse(reply.message(await whole(server.work, job, request)))

    def done(answer: Answer) -> list[Any]:
        usage = [reply.chunk(usage=answer)] if with_usage else []
        return [reply.chunk(finish=answer), *usage, "[DONE]"]

    first = [reply.chunk({"role": "assistant", "content": ""})]
    return await streamed(server.work, job, request, reply.piece, first, done)


def _stream(fields: Fields) -> tuple[bool, bool]:
    """Whether pieces are wanted, and the counts of tokens behind them."""
    stream, how = fields.flag("stream"), fields.take("stream_options")
    if how is None:
        return stream, False
    if not stream or not isinstance(how, dict):
        raise Refused(400, "stream_options is an object beside stream=true", param="stream_options")
    inner = Fields(how)
    usage = inner.flag("include_usage")
    inner.only("include_obfuscation", False)
    inner.end()
    return stream, usage


def _bounds(server: Server, fields: Fields) -> dict[str, Any]:
    """Options that hold for all turns of a conversation."""
    stop = fields.texts("stop")
    if len(stop) > MOST_STOPS:
        raise Refused(400, f"stop holds at most {MOST_STOPS} texts", param="stop")
    try:
        form = openai_format(fields.take("response_format"))
    except AlmError as error:
        raise because(error, "response_format") from error
    if form and stop:
        raise Refused(400, "stop would cut what response_format wants; leave it out", param="stop")
    return {"stop": stop, "max_audio_seconds": server.settings.audio_seconds, **form}


def _answered(
    server: Server, said: Sequence[Exchange], bounds: dict[str, Any], options: dict[str, Any]
) -> Generator[str, None, Answer]:
    """The answer to the last question, from what was computed of those before it, if it is kept."""
    *told, last = said
    how = repr(sorted(bounds.items()))
    talk = server.kept.take(told, how) if told else None
    if talk is None:
        talk = server.model.chat(**bounds)
        for exchange in told:
            prompt = _asked(server, exchange.prompt)
            talk.tell(prompt, *exchange.clips, answer=exchange.answer or "")
            yield ""  # here whoever went away is let go
    remember = bool(told) or not _windowed(server, last)
    question = Question(_asked(server, last.prompt), last.clips)
    (answer,) = yield from talk.turn([question], options, True, remember=remember)
    server.metrics.answer(answer)
    if remember:
        done = Exchange(last.prompt, last.clips, answer.text)
        server.kept.put([*told, done], how, talk)
    return answer


def _asked(server: Server, prompt: str) -> str:
    """A task by its name, or else the text as it stands, be it nearly a task's name."""
    return prompt.strip() if prompt.strip() in server.model.tasks else prompt


def _windowed(server: Server, question: Exchange) -> bool:
    """Whether it is about one clip that is longer than the model hears at a time."""
    rules = server.model.parts.rules
    if len(question.clips) != 1 or not rules.most:
        return False
    clip = rules.read(question.clips[0], server.settings.audio_seconds, Stages())
    return len(clip.pcm) > rules.most


class _Reply:
    """One completion as OpenAI's objects."""

    def __init__(self, model: str) -> None:
        self.head = {
            "id": f"chatcmpl-{secrets.token_hex(12)}",
            "created": int(time.time()),
            "model": model,
            "system_fingerprint": None,
        }

    def message(self, answer: Answer) -> dict[str, Any]:
        """The whole answer."""
        message: dict[str, Any] = {"role": "assistant", "content": answer.text, "refusal": None}
        if answer.thinking is not None:
            message["reasoning_content"] = answer.thinking
        choice = {
            "index": 0,
            "message": message,
            "logprobs": None,
            "finish_reason": _finish(answer),
        }
        return {
            **self.head,
            "object": "chat.completion",
            "choices": [choice],
            "usage": _usage(answer),
            "alm": extra(answer),
        }

    def piece(self, text: str) -> dict[str, Any]:
        """A piece of the answer."""
        return self.chunk({"content": text})

    def chunk(
        self,
        delta: dict[str, Any] | None = None,
        finish: Answer | None = None,
        usage: Answer | None = None,
    ) -> dict[str, Any]:
        """An event: a piece, the end, or the counts."""
        choice = {"index": 0, "delta": delta or {}, "logprobs": None, "finish_reason": None}
        if finish:
            choice["finish_reason"] = _finish(finish)
        made: dict[str, Any] = {**self.head, "object": "chat.completion.chunk"}
        made["choices"] = [] if usage else [choice]
        if finish:
            made["alm"] = extra(finish, timed=True)
        return made | ({"usage": _usage(usage)} if usage else {})


def _finish(answer: Answer) -> str:
    return "length" if answer.stop_reason in ("length", "context") else "stop"


def _usage(answer: Answer) -> dict[str, Any]:
    cached = answer.cached_tokens + answer.prefix_tokens
    return {
        "prompt_tokens": answer.prompt_tokens,
        "completion_tokens": len(answer.token_ids),
        "total_tokens": answer.prompt_tokens + len(answer.token_ids),
        "prompt_tokens_details": {"cached_tokens": cached, "audio_tokens": answer.audio_tokens},
    }
