"""alm-run --chat: a conversation line by line."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from alm.cli.terminal import json_text, say
from alm.errors import AlmError, BadPrompt, MissingFile

if TYPE_CHECKING:
    from alm.generation.conversation import Conversation

HEAR, LEAVE = "/audio", "/quit"
HELP = (
    f"{HEAR} FILE adds a clip to what you ask next (<audio> in it is the clip's place), "
    f"{LEAVE} or the end of the input leaves"
)


def converse(chat: Conversation, clips: list[str], as_json: bool) -> None:
    """Ask line by line until the input ends.

    `clips` belong to the first question. At a terminal a question that is refused costs only
    itself; from a pipe it ends the conversation.

    Raises:
        AlmError: from a pipe, what is wrong with a line.
    """
    interactive = sys.stdin.isatty()
    if interactive:
        print(HELP, file=sys.stderr)
    for line in _lines(interactive):
        try:
            if line.startswith("/"):
                clips = [*clips, _clip(line)]
                continue
            _turn(chat, line, clips, as_json)
            clips = []
        except AlmError as error:
            if not interactive:
                raise
            print(f"error: {error}", file=sys.stderr)
        except KeyboardInterrupt:  # stops the answer, not the conversation
            if not interactive:
                raise
            print("\ninterrupted", file=sys.stderr)


def _turn(chat: Conversation, prompt: str, clips: list[str], as_json: bool) -> None:
    answer = chat.ask(prompt, *clips, on_text=None if as_json else say)
    print(json_text(answer.to_json()) if as_json else "", flush=True)
    for note in () if as_json else answer.notes:
        print(f"note: {note}", file=sys.stderr)


def _clip(line: str) -> str:
    word, _, path = line.partition(" ")
    path = path.strip()
    if word != HEAR or not path:
        raise BadPrompt(f"unknown {line!r:.80}; {HELP}")
    if not Path(path).is_file():
        raise MissingFile(f"there is no file {path}; wanted an audio file")
    return path


def _lines(interactive: bool) -> Iterator[str]:
    """What is typed, without what is empty, until the end or /quit."""
    while True:
        if interactive:
            print("> ", end="", file=sys.stderr, flush=True)
        line = sys.stdin.readline()
        if not line or line.strip() == LEAVE:
            return
        if line.strip():
            # The end of the line is not the user's; every other space is.
            yield line.removesuffix("\n").removesuffix("\r")
