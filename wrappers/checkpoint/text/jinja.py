"""Renders a chat template of a stranger: a program of its own, with little memory and time.

On stdin {"template", "variables", "conversations"}, on stdout a list with {"text"} or {"error"} of
each conversation. A template may loop without end or ask for gigabytes, which no sandbox inside of
a process can stop.
"""

from __future__ import annotations

import json
import sys
from datetime import datetime
from typing import Any

MOST_BYTES = 2**30  # of memory
MOST_SECONDS = 5  # of the processor
MOST_TEXT = 2**16  # characters of one conversation


def main() -> None:
    """Read, render, write."""
    _limit()
    request = json.load(sys.stdin)
    try:
        template = _compiled(request["template"])
    except Exception as error:  # jinja2 raises its own and Python's
        results = [{"error": _sentence(error)} for _ in request["conversations"]]
    else:
        results = [_rendered(template, request["variables"], c) for c in request["conversations"]]
    json.dump(results, sys.stdout)


def _limit() -> None:
    try:
        import resource
    except ImportError:  # not on Windows; the caller's clock still ticks
        return
    resource.setrlimit(resource.RLIMIT_CPU, (MOST_SECONDS, MOST_SECONDS))
    if sys.platform == "linux":  # macOS refuses
        resource.setrlimit(resource.RLIMIT_AS, (MOST_BYTES, MOST_BYTES))


def _compiled(source: str) -> Any:
    """The template as transformers would have it: its options, filters and functions."""
    from jinja2.exceptions import TemplateError
    from jinja2.ext import loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    def fail(message: str) -> None:
        raise TemplateError(message)

    def as_json(value: Any, indent: int | None = None) -> str:
        return json.dumps(value, ensure_ascii=False, indent=indent)

    world = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols]
    )
    world.filters["tojson"] = as_json
    world.globals["raise_exception"] = fail
    world.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    return world.from_string(source)


def _rendered(template: Any, variables: dict[str, Any], conversation: Any) -> dict[str, str]:
    pieces, length = [], 0
    try:
        for piece in template.generate(**(variables | conversation)):
            pieces.append(piece)
            length += len(piece)
            if length > MOST_TEXT:
                return {"error": f"it writes more than {MOST_TEXT} characters"}
    except Exception as error:  # whatever a template can provoke
        return {"error": _sentence(error)}
    return {"text": "".join(pieces)}


def _sentence(error: Exception) -> str:
    return (" ".join(str(error).split()) or type(error).__name__)[:300]


if __name__ == "__main__":
    main()
