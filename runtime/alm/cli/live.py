"""alm-run --live: sound written down while it comes."""

from __future__ import annotations

import os
import shutil
import sys
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alm.cli.terminal import STDIN, json_text, say
from alm.errors import BadOption, BadPrompt, MissingFile
from alm.facts import AudioFacts, Facts, PromptFacts
from alm.parsing import printable
from alm.text.tasks import checked, in_language, task

if TYPE_CHECKING:
    import numpy as np

    from alm.generation.model import Model
    from alm.hearing.events import Event, Final, Partial

TRANSCRIBE = "transcribe"
# What only some live runs have: those of models that hear a stream, or that hear clips.
OF_STREAMS = ("--delay", "--cache")
OF_CLIPS = ("--language", "--draft", "--stop", "--adapter", "--merge-audio")
BEGIN, FAINT, PLAIN = "\r\x1b[K", "\x1b[2m", "\x1b[0m"  # of a terminal: the line anew


def check_live(
    facts: Facts,
    words: list[str],
    pace: float | None,
    language: str,
    verbatim: bool,
    others: Mapping[str, Any],
) -> None:
    """Refuse what is no live run, before a model of gigabytes is loaded.

    Args:
        facts: the manifest's.
        words: the arguments: a clip, or none, and what is asked about each utterance.
        pace, language, verbatim: as the command line has them.
        others: options that not every live run has, by name, and whether they were given.

    Raises:
        BadOption: something is given that a live run has not.
        BadPrompt, UnknownName: the prompt is none, or the model has no such task or language.
        MissingFile: there is no such clip.
    """
    streams = bool(facts.live.step_samples)
    given = [name for name, value in others.items() if value]
    if "--delay" in given and not streams:
        raise BadOption("--delay is of a model that hears a stream, and this one hears clips")
    given = [name for name in given if name not in (OF_STREAMS if streams else OF_CLIPS)]
    if given:
        raise BadOption(f"--live prints text as it comes: {', '.join(given)} is not for it")
    if len(words) > 2:
        raise BadOption(
            "--live wants a clip, - for raw samples of stdin, or nothing: a microphone; and behind "
            "a clip or - what to do, if not transcribe"
        )
    if pace is not None and (not words or words[0] == STDIN):
        raise BadOption("--pace is for a clip: what else is heard comes at its own")
    _check_prompt(facts.prompt, words[1:], language, verbatim, streams)
    if words and words[0] != STDIN and not os.path.exists(words[0]):
        raise MissingFile(f"there is no file {words[0]}; wanted an audio file")


def _check_prompt(
    facts: PromptFacts, words: list[str], language: str, verbatim: bool, streams: bool
) -> None:
    prompt = checked(words[0] if words else TRANSCRIBE)
    if streams:
        if prompt != TRANSCRIBE:
            raise BadPrompt("this model writes down what it hears and is asked nothing: transcribe")
        return
    if not words and TRANSCRIBE not in facts.tasks:
        raise BadPrompt(
            f"this model has no task {TRANSCRIBE}; say what to do: alm-run --live - PROMPT"
        )
    if language:
        in_language(prompt, language, facts)
    elif not verbatim:
        task(prompt, facts.tasks)


def listen(
    model: Model,
    words: list[str],
    as_json: bool,
    pace: float | None,
    bounds: Mapping[str, Any],
    options: Mapping[str, Any],
) -> None:
    """Print what is heard until the sound ends; an interrupt ends it too."""
    facts = model.manifest.facts
    chunks = _chunks(facts.audio, words, bounds["max_audio_seconds"])
    if pace:
        from alm.hearing.following import paced

        chunks = paced(chunks, facts.audio.rate, pace)
    if facts.live.window and not as_json:
        _write_down(model, chunks, bounds["delay"], options)
        return
    taken = ("delay", "verbatim") if facts.live.step_samples else bounds.keys() - {"delay"}
    prompt = words[1] if len(words) > 1 else TRANSCRIBE
    listener = model.listen(prompt, **{name: bounds[name] for name in taken}, **options)
    from alm.hearing.following import Follower

    # A file and a pipe wait for a slow model; a microphone cannot.
    follower = Follower(listener, chunks, waits=bool(words))
    show = _json if as_json else _screen() if _rewritable() else _lines
    try:
        show(follower.events())
    except KeyboardInterrupt:
        follower.stop()
        show(follower.events())


def _write_down(
    model: Model, chunks: Iterator[np.ndarray], delay: float | None, options: Any
) -> None:
    """A model that hears a stream: its text, piece by piece."""
    live = model.live(delay=delay, **options)
    try:
        for piece in live.follow(chunks):
            say(piece)
    except KeyboardInterrupt:
        say(live.finish())
    print(flush=True)


def _chunks(audio: AudioFacts, words: list[str], most_seconds: float) -> Iterator[np.ndarray]:
    from alm.live import sources

    if not words:
        return sources.microphone(audio.rate, on_lost=_tell_once())
    if words[0] == STDIN:
        # Unbuffered: a thread that waits for a buffer would keep the process from ending.
        return sources.pcm(getattr(sys.stdin.buffer, "raw", sys.stdin.buffer))
    return sources.file(Path(words[0]), audio.rate, audio.channel, most_seconds)


def _tell_once() -> Callable[[], None]:
    told = False

    def tell() -> None:
        nonlocal told
        if not told:
            print("note: some sound of the microphone came too fast and was lost", file=sys.stderr)
        told = True

    return tell


# --- what is printed


def _json(events: Iterable[Event]) -> None:
    from alm.hearing.events import Final, Partial

    for event in events:
        if isinstance(event, Partial | Final):
            print(json_text(event.to_json()), flush=True)


def _lines(events: Iterable[Event]) -> None:
    """Finals alone, a line each."""
    from alm.hearing.events import Final

    for event in events:
        if isinstance(event, Final):
            _final(event, "")


def _final(event: Final, begin: str) -> None:
    """A final's line; what cut it is told, and no other note: nearly all are short clips."""
    text = printable(" ".join(event.text.split()), len(event.text))
    if text or begin:
        print(begin + text, end="\n" if text else "", flush=True)
    if getattr(event.answer, "stop_reason", "") in ("length", "context"):
        for note in getattr(event.answer, "notes", ()):
            print(f"note: {note}", file=sys.stderr)


def _rewritable() -> bool:
    return sys.stdout.isatty() and os.environ.get("TERM") != "dumb"


def _screen() -> Callable[[Iterable[Event]], None]:
    """Partials on one line that is written anew, what is not certain fainter; finals stay."""
    from alm.hearing.events import Final, Partial

    def show(events: Iterable[Event]) -> None:
        for event in events:
            if isinstance(event, Final):
                _final(event, BEGIN)
            elif isinstance(event, Partial):
                sys.stdout.write(BEGIN + _fitting(event, shutil.get_terminal_size().columns - 1))
                sys.stdout.flush()

    return show


def _fitting(event: Partial, columns: int) -> str:
    """The end of a partial text that fits one line of a terminal."""
    certain = printable(" ".join(event.certain.split()), len(event.text))
    whole = printable(" ".join(event.text.split()), len(event.text))
    at, width = len(whole), 0
    while at and width + _width(whole[at - 1]) <= columns:
        at -= 1
        width += _width(whole[at])
    sure = max(at, len(certain)) if whole.startswith(certain) else at
    return whole[at:sure] + FAINT + whole[sure:] + PLAIN


def _width(char: str) -> int:
    """Columns of a character."""
    if unicodedata.combining(char):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1
