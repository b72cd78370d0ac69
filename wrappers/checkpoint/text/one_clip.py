"""Chat templates of processors that take one clip a prompt: compared with a prompt that is known.

What such a template writes of several clips is never asked, and may be anything.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from alm.facts import PromptFacts
from wrappers.checkpoint.text import chat_template
from wrappers.checkpoint.text.conversations import ANSWER, CLIP_FORMS, Conversation, written

CONVERSATIONS: tuple[Conversation, ...] = (
    ((None, "What do\nyou  hear?"),),
    ((None, " What is said? \n"),),
    (("  What is that? \n",),),
    ((None, "Transcribe."), ("And now?",)),
    ((None, "One."), (" Two. ",), ("Three.",)),
    (("Listen.",), (None, "What is said?")),
)


def check(folder: Path, prompt: PromptFacts) -> None:
    """That the folder's template, if there is one, writes conversations as `prompt` has them.

    Raises:
        BadCheckpoint: it cannot be rendered, or writes one of CONVERSATIONS otherwise.
    """
    template = chat_template.template(folder, prompt.placeholder)
    if template is not None:
        template.check([(_messages(each), written(prompt, each)) for each in CONVERSATIONS])


def _messages(conversation: Conversation) -> list[dict[str, Any]]:
    """The conversation as transformers' templates take it, an answer after every turn but one."""
    messages: list[dict[str, Any]] = []
    for turn in conversation:
        content = [CLIP_FORMS[0] if p is None else {"type": "text", "text": p} for p in turn]
        answer = [{"type": "text", "text": ANSWER}]
        messages.append({"role": "user", "content": content})
        messages.append({"role": "assistant", "content": answer})
    return messages[:-1]
