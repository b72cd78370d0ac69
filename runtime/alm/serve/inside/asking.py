"""What is asked of a model that writes down or translates, and what the answer took."""

from __future__ import annotations

from typing import Any

from alm.errors import AlmError
from alm.generation.answers import Answer
from alm.serve.inside.server import Server
from alm.serve.refused import Refused, because
from alm.text.tasks import in_language


def task_of(server: Server, task: str, language: str) -> str:
    """The model's task that does it."""
    facts = server.model.manifest.facts.prompt
    name = "translate_en" if task == "translate" else task
    if name not in facts.tasks:
        raise Refused(
            400,
            f"this model has no task {name}; it has: {', '.join(sorted(facts.tasks))[:400]}",
            code="unsupported_task",
        )
    if language and task == "translate":
        raise Refused(400, "a translation is into English; leave language out", param="language")
    if language:
        try:
            in_language(name, language, facts)
        except AlmError as error:
            raise because(error, "language") from error
    return name


def in_context(server: Server, name: str, context: str) -> tuple[str, bool]:
    """What is asked to do a task with words of context, and whether it is asked as it is.

    Raises:
        Refused: the model's task has words of its own.
    """
    if not context.strip():
        return name, False
    if server.model.tasks[name].strip():
        why = "this model's transcriptions take no words of context; leave prompt out"
        raise Refused(400, why, param="prompt")
    return context, True


def usage(answer: Answer) -> dict[str, Any]:
    """OpenAI's usage of a transcription."""
    text = answer.prompt_tokens - answer.audio_tokens
    return {
        "type": "tokens",
        "input_tokens": answer.prompt_tokens,
        "input_token_details": {"audio_tokens": answer.audio_tokens, "text_tokens": text},
        "output_tokens": len(answer.token_ids),
        "total_tokens": answer.prompt_tokens + len(answer.token_ids),
    }
