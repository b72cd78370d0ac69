"""What every endpoint of a server shares: the model, the queue, conversations and counters."""

from __future__ import annotations

import json
import re
from dataclasses import asdict
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from alm.errors import AlmError
from alm.generation.answers import Answer
from alm.generation.model import Model
from alm.serve.endpoints.fields import Fields
from alm.serve.inside.kept import Kept
from alm.serve.inside.metrics import Metrics
from alm.serve.inside.work import Work
from alm.serve.refused import Refused, because, for_clients
from alm.serve.settings import Settings

MOST_TOKENS = 2**20
HALF = re.compile(r"\\u[dD][89a-fA-F]|[\ud800-\udfff]")  # of a surrogate pair, in JSON
# Fields that ask nothing of the answer: who is asking, and what OpenAI keeps or bills.
SILENT = ("user", "safety_identifier", "prompt_cache_key", "metadata")


class Server:
    """One model that is served."""

    def __init__(self, model: Model, settings: Settings) -> None:
        self.model, self.settings = model, settings
        self.work = Work(settings.rows, settings.waiting, settings.timeout)
        self.kept, self.metrics = Kept(settings.kept_bytes), Metrics()
        self.sockets = 0  # live ones, open now

    def close(self) -> None:
        """Take nothing more; what runs is finished."""
        self.work.close()

    def check_model(self, fields: Fields) -> str:
        """The model's name that a request gave, or the first that it has.

        Raises:
            Refused: it asks for another model (404, as OpenAI).
        """
        names = self.settings.names
        name = fields.text("model", names[0])
        if name not in names:
            raise Refused(
                404,
                f"there is no model {name!r:.80} here; there is: {', '.join(names)}",
                param="model",
                code="model_not_found",
            )
        return name

    def decoding(self, fields: Fields) -> dict[str, Any]:
        """Decoding options of a request.

        Raises:
            Refused: out of range, or contradicting each other.
        """
        options: dict[str, Any] = {
            "temperature": fields.number("temperature", 0, 2),
            "top_p": fields.number("top_p", 0, 1),
            "top_k": fields.whole("top_k", 0, MOST_TOKENS),
            "min_p": fields.number("min_p", 0, 1),
            "seed": fields.whole("seed", -(2**63), 2**63 - 1),
            "num_beams": fields.whole("num_beams", 1, 16),
            "repetition_penalty": fields.number("repetition_penalty", 0.1, 10),
            "no_repeat_ngram_size": fields.whole("no_repeat_ngram_size", 0, 100),
            "max_new_tokens": _most(fields),
        }
        given = {name: value for name, value in options.items() if value is not None}
        if "seed" in given:
            given["seed"] %= 2**32
        if not given.get("temperature", 1):
            for name in ("top_p", "top_k", "min_p", "seed"):  # of sampling, which this is not
                given.pop(name, None)
        if given.keys() & {"temperature", "top_p", "top_k", "min_p", "seed"}:
            given.setdefault("num_beams", 1)
        chosen = self.settings.defaults | given
        try:
            self.model.parts.options(chosen)
        except AlmError as error:
            raise because(error) from error
        return chosen


def _most(fields: Fields) -> int | None:
    """`max_completion_tokens`, or what it was called before."""
    new = fields.whole("max_completion_tokens", 1, MOST_TOKENS)
    old = fields.whole("max_tokens", 1, MOST_TOKENS)
    if None not in (new, old) and new != old:
        raise Refused(
            400, "max_tokens and max_completion_tokens are one field; give one", param="max_tokens"
        )
    return old if new is None else new


def skip_silent(fields: Fields) -> None:
    """Take the fields that ask nothing of the answer."""
    for name in SILENT:
        fields.take(name)
    fields.only("store", False)
    fields.only("service_tier", "auto", "default")


async def body(request: Request) -> Any:
    """The request's JSON.

    Raises:
        Refused: it is none.
    """
    check_kind(request, "application/json")
    text = await request.body()
    return await run_in_threadpool(parsed, text, "the body")


def check_kind(request: Request, wanted: str) -> None:
    """Refuse, with Refused, a body that is said to be of another kind."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != wanted:
        raise Refused(415, f"wanted {wanted}, not {kind or 'nothing'!r:.80}")


def parsed(text: bytes | str, what: str) -> Any:
    """What a client's JSON holds; refuses, with Refused, what is none, or no text."""
    try:
        text = text if isinstance(text, str) else text.decode("utf-8")
        plain = json.loads(text)
        if HALF.search(text):  # an escape; half a pair can be written to no answer
            json.dumps(plain, ensure_ascii=False).encode()
        return plain
    except (ValueError, RecursionError):
        raise Refused(400, f"{what} is no JSON in UTF-8") from None


EXTRA = ("audio_seconds", "audio_cached", "windows", "stop_reason", "language", "provider", "notes")


def extra(answer: Answer, timed: bool = False) -> dict[str, Any]:
    """What OpenAI's objects have no place for: `alm` beside their fields.

    With `timed` there are segments and their words too, for which a stream of theirs has none.
    """
    found = {name: getattr(answer, name) for name in EXTRA}
    found["notes"] = [for_clients(note) for note in answer.notes]
    found |= {"segments": [asdict(segment) for segment in answer.segments]} if timed else {}
    return found | {"timings_ms": answer.timings_ms}
