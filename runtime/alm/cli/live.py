"""alm-run --live: what is said, printed while it is heard."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from alm.cli.terminal import STDIN, say
from alm.errors import BadOption
from alm.facts import AudioFacts, Facts
from alm.generation.model import Model
from alm.live import sources


def check(facts: Facts, words: list[str], others: Mapping[str, Any]) -> None:
    """Refuse, with BadOption, before a model of gigabytes is loaded, what is no live run.

    Args:
        facts: the manifest's.
        words: the arguments, of which there is a clip, or none.
        others: options that a live run does not have, by name, and whether they were given.
    """
    if given := [name for name, value in others.items() if value]:
        raise BadOption(f"--live prints text as it comes: {', '.join(given)} is not for it")
    if len(words) > 1:
        raise BadOption("--live wants a clip, - for raw samples of stdin, or nothing: a microphone")
    if not facts.live.step_samples:
        raise BadOption("this model hears clips, no streams, so there is no live run of it")


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
    if not words:
        return sources.microphone(audio.rate)
    if words[0] == STDIN:
        return sources.pcm(sys.stdin.buffer)
    return sources.file(Path(words[0]), audio.rate, audio.channel, most_seconds)
