"""What the answering model does in Triton: requests in, texts out, several of them at once."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

import alm
from alm.artifacts import manifest as manifests
from alm.audio.reader import HOUR
from alm.errors import AlmError, BadOption
from alm.generation.answers import Answer
from alm.generation.keywords import split
from alm.host.containment import HARD_LINKS
from alm.triton.front import Front
from alm.triton.python_config import ANSWER, AT_ONCE, FOLDER, TEXT
from alm.triton.requests import Asked, asked

Group = list[tuple[Asked, "Reply"]]


class Cancelled(Exception):
    """The client went away: nobody reads the rest of its answer."""


class Reply:
    """Where the answer to one request goes: pieces and an end, or the end alone."""

    def __init__(self, utils: Any, request: Any, decoupled: bool) -> None:
        """`utils` is Triton's module; without `decoupled` the end becomes `response`."""
        self._utils, self._request = utils, request
        self._sender = request.get_response_sender() if decoupled else None
        self.response: Any = None

    def gone(self) -> bool:
        """Whether the client has cancelled the request."""
        return (self._sender or self._request).is_cancelled()

    def piece(self, text: str) -> None:
        """Send a piece of text; raises Cancelled where nobody wants it any more."""
        if self.gone():
            raise Cancelled
        assert self._sender is not None  # only such requests may ask for pieces
        self._sender.send(self._made(text, ""))

    def end(self, text: str, answer: Answer) -> None:
        """Send the last text, and the answer with all that was measured."""
        plain = json.dumps(answer.to_json(), ensure_ascii=False, default=float)
        self._last(self._made(text, plain))

    def fail(self, sentence: str, kind: str = "INVALID_ARG") -> None:
        """End with an error; `kind` is the name of one of Triton's codes."""
        error = self._utils.TritonError
        self._last(
            self._utils.InferenceResponse(
                output_tensors=[], error=error(sentence, getattr(error, kind))
            )
        )

    def _last(self, response: Any) -> None:
        if self._sender:
            final = self._utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL
            self._sender.send(response, flags=final)
        self.response = response

    def _made(self, text: str, answer: str) -> Any:
        tensors = [
            self._utils.Tensor(name, np.array([[value.encode()]], np.object_))
            for name, value in ((TEXT, text), (ANSWER, answer))
        ]
        return self._utils.InferenceResponse(output_tensors=tensors)


class Answering:
    """A folder opened in Triton's Python process."""

    def __init__(self, utils: Any, args: Mapping[str, str]) -> None:
        """`args` are those of Triton's `initialize`.

        Raises:
            AlmError: the folder beside `model.py` cannot be opened.
        """
        config = json.loads(args["model_config"])
        given = config.get("parameters", {})
        settings = {name: value.get("string_value", "") for name, value in given.items()}
        version = Path(args["model_repository"], str(args["model_version"]))
        if settings.get("hard_links") == "1":  # ours, as the code beside them is
            os.environ[HARD_LINKS] = "1"
        self._utils, self._rows = utils, int(config.get("max_batch_size") or 1)
        folder, front = version / FOLDER, None
        if ensemble := settings.get("front"):
            front = Front(utils, ensemble, manifests.load(folder), self._rows)
        provider, threads = settings.get("provider", "auto"), int(settings.get("threads", 0))
        self.model = alm.load(folder, provider, threads, front=front)
        self._most_seconds = float(settings.get("max_audio_seconds", HOUR))
        self.decoupled = bool(config.get("model_transaction_policy", {}).get("decoupled"))
        at_once = int(settings.get("answers_at_once", AT_ONCE)) if self.decoupled else 1
        self._pool = ThreadPoolExecutor(at_once, "answer")
        self._free = threading.Semaphore(at_once)

    def execute(self, requests: Sequence[Any]) -> list[Any] | None:
        """Answer a batch of requests; see Triton's `execute`.

        Where answers come in pieces this returns as soon as all of them are being computed, and
        waits while as many are as may be at once: what is in the server's queue is cancelled, timed
        out and batched by the server.
        """
        replies = [Reply(self._utils, request, self.decoupled) for request in requests]
        for group in self._groups(requests, replies):
            if not self.decoupled:
                self._answer(group)
                continue
            self._free.acquire()
            self._pool.submit(self._answer, group).add_done_callback(lambda _: self._free.release())
        return None if self.decoupled else [reply.response for reply in replies]

    def close(self) -> None:
        """Wait for the answers that are being computed."""
        self._pool.shutdown(wait=True)

    def _groups(self, requests: Sequence[Any], replies: Sequence[Reply]) -> list[Group]:
        """Questions that are answered in one batch: with the same options, and none in pieces."""
        groups: dict[str, Group] = {}
        for i, (request, reply) in enumerate(zip(requests, replies, strict=True)):
            try:
                question = self._asked(request)
                sampled = self.model.options(**split(question.options)[1]).do_sample
            except AlmError as error:
                reply.fail(str(error))
                continue
            except Exception as error:  # of this request alone
                self._unexpected(error, [reply])
                continue
            # Drawn tokens would depend on the company that a question is in.
            alone = question.stream or sampled
            key = f"{i}" if alone else question.company
            groups.setdefault(key, []).append((question, reply))
        return [
            group[at : at + self._rows]
            for group in groups.values()
            for at in range(0, len(group), self._rows)
        ]

    def _asked(self, request: Any) -> Asked:
        def tensor(name: str) -> Any:
            found = self._utils.get_input_tensor_by_name(request, name)
            return None if found is None else found.as_numpy()

        question = asked(tensor, self.model.manifest.adapters, self._most_seconds)
        if question.stream and not self.decoupled:
            raise BadOption("this model answers in one piece; pack it without --no-stream")
        return question

    def _answer(self, group: Group) -> None:
        """Answer each of them, whatever happens."""
        there: Group = []
        for question, reply in group:
            if reply.gone():
                reply.fail("the request was cancelled", "CANCELLED")
            else:
                there.append((question, reply))
        try:
            if there and there[0][0].stream:
                self._stream(*there[0])
            elif there:
                self._batch(there)
        except Cancelled:
            there[0][1].fail("the request was cancelled", "CANCELLED")
        except AlmError as error:
            if len(there) == 1:
                there[0][1].fail(str(error))
                return
            for one in there:  # one of them is to blame, and the others are answered
                self._answer([one])
        except Exception as error:  # the client is told, and the server lives
            self._unexpected(error, [reply for _, reply in there])

    def _unexpected(self, error: Exception, replies: Sequence[Reply]) -> None:
        sentence = f"unexpected {type(error).__name__}: {error}".split("\n")[0]
        self._utils.Logger.log_error(sentence)
        for reply in replies:
            reply.fail(sentence, "INTERNAL")

    def _stream(self, question: Asked, reply: Reply) -> None:
        answer = self.model.generate(
            question.source, question.prompt, on_text=reply.piece, **question.options
        )
        reply.end("", answer)

    def _batch(self, group: Group) -> None:
        answers = self.model.generate(
            [question.source for question, _ in group],
            [question.prompt for question, _ in group],
            **group[0][0].options,
        )
        for (_, reply), answer in zip(group, answers, strict=True):
            reply.end(answer.text, answer)
