"""What a request is refused with: OpenAI's error object, and the status that its clients know."""

from __future__ import annotations

import re
from typing import Any

from starlette.responses import JSONResponse

from alm.errors import LONGEST, AlmError, BadAudio, BadOption, BadPrompt, MissingFile, UnknownName
from alm.parsing import printable

# What is wrong with what was sent; every other error of ours is wrong with what is served.
THEIRS = (BadAudio, BadOption, BadPrompt, MissingFile, UnknownName)

# What a sentence tells whoever sits at the command line to do, and what a client can do instead.
COMMANDS = (
    (r", or (?:allow more:|use) --[\w-]+(?: \w+)?", ""),
    (r"--no-gate", "gate=false"),
    (r"--truncate hears the first alone, or give", "give"),
    (r"--max-new-tokens", "max_tokens"),
)


def for_clients(sentence: str) -> str:
    """A sentence of the model's without the options of commands, which a client does not have."""
    for said, instead in COMMANDS:
        sentence = re.sub(said, instead, sentence)
    return sentence


class Refused(Exception):
    """A request that is not answered; the message is one sentence for a person."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        """`param` is the field that is wrong, `code` what OpenAI calls the fault."""
        super().__init__(printable(message, LONGEST))  # it may quote what was sent
        self.status, self.code, self.headers = status, code, headers
        self.param = None if param is None else printable(param)

    @property
    def body(self) -> dict[str, Any]:
        """OpenAI's error object."""
        kinds = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
        kind = kinds.get(self.status, "invalid_request_error" if self.status < 500 else "api_error")
        error = {"message": str(self), "type": kind, "param": self.param, "code": self.code}
        return {"error": error}

    def response(self) -> JSONResponse:
        """The whole answer."""
        return JSONResponse(self.body, self.status, self.headers)


def because(error: BaseException, param: str | None = None) -> Refused:
    """The refusal of a request that ended in this error."""
    if isinstance(error, Refused):
        return error
    if isinstance(error, THEIRS):
        return Refused(400, for_clients(str(error)), param=param)
    if isinstance(error, AlmError):
        return Refused(500, for_clients(str(error)), code="model_error")
    if isinstance(error, MemoryError):
        return Refused(503, "the server is out of memory", code="out_of_memory")
    return Refused(500, "the server failed; its log says why", code="internal_error")
