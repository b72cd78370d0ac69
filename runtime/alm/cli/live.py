"""alm-run --live: what is said, printed while it is heard."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alm.cli.terminal import STDIN, say
from alm.errors import BadOption, MissingFile
from alm.facts import AudioFacts, Facts

if TYPE_CHECKING:
    import numpy as np

    from alm.generation.model import Model


def check(facts: Facts, words: list[str], others: Mapping[str, Any]) -> None:
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


def run(
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
