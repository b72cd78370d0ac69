"""alm-run --chat and --live: a conversation line by line, and sound written down as it comes."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alm.cli.terminal import STDIN, json_text, say
from alm.errors import AlmError, BadOption, BadPrompt, MissingFile
from alm.facts import AudioFacts, Facts

if TYPE_CHECKING:
    import numpy as np

    from alm.generation.conversation import Conversation
    from alm.generation.model import Model

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


# --- live


def check_live(facts: Facts, words: list[str], others: Mapping[str, Any]) -> None:
    """Refuse what is no live run, before a model of gigabytes is loaded.

    Args:
        facts: the manifest's.
        words: the arguments, of which there is a clip, or none.
        others: options that a live run does not have, by name, and whether they were given.

    Raises:
        BadOption: the model hears no stream, or something is given that a stream has not.
        MissingFile: there is no such clip.
    """
    if given := [name for name, value in others.items() if value]:
        raise BadOption(f"--live prints text as it comes: {', '.join(given)} is not for it")
    if len(words) > 1:
        raise BadOption("--live wants a clip, - for raw samples of stdin, or nothing: a microphone")
    if not facts.live.step_samples:
        raise BadOption("this model hears clips, no streams, so there is no live run of it")
    if words and words[0] != STDIN and not os.path.exists(words[0]):
        raise MissingFile(f"there is no file {words[0]}; wanted an audio file")


def listen(
    model: Model, words: list[str], most_seconds: float, delay: float | None, options: Any
) -> None:
    """Print what is heard until the sound ends; an interrupt ends it too."""
    live = model.live(delay=delay, **options)
    chunks = _chunks(model.manifest.facts.audio, words, most_seconds)
    try:
        for piece in live.follow(chunks):
            say(piece)
    except KeyboardInterrupt:
        say(live.finish())
    print(flush=True)


def _chunks(audio: AudioFacts, words: list[str], most_seconds: float) -> Iterator[np.ndarray]:
    from alm.live import sources

    if not words:
        return sources.microphone(audio.rate)
    if words[0] == STDIN:
        return sources.pcm(sys.stdin.buffer)
    return sources.file(Path(words[0]), audio.rate, audio.channel, most_seconds)
