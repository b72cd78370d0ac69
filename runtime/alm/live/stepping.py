"""A model that hears step by step, given whole clips: its prompt, and how its tokens are fed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from alm.errors import BadOption, BadPrompt
from alm.facts import AudioFacts, LiveFacts
from alm.live.hearing import behind

MOST_DELAY = 60.0  # seconds


class Cached(Protocol):
    """A decoder with a KV cache, as `decoder.decoder.Decoder` is."""

    lengths: np.ndarray
    table: Any

    def feed(self, embeds: np.ndarray, lengths: np.ndarray) -> np.ndarray: ...
    def reorder(self, rows: np.ndarray) -> None: ...


class Beside:
    """The decoder with sound beside its tokens: what `search.decode` needs of one.

    A position's embedding is that of its token plus that of its step of sound.
    """

    def __init__(self, decoder: Cached, audio: np.ndarray) -> None:
        """`audio` is float32 [steps, hidden] of the one clip that all rows are about."""
        self.decoder, self.audio = decoder, audio

    def feed(self, embeds: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        """The prompt, which has its steps of sound already."""
        return self.decoder.feed(embeds, lengths)

    def step(self, token_ids: np.ndarray) -> np.ndarray:
        """See `steps.Decoder`."""
        ids = np.asarray(token_ids, np.int64)[:, None]
        embeds = self.decoder.table(ids) + self.audio[self.decoder.lengths][:, None]
        return self.decoder.feed(embeds, np.ones(len(ids), np.int64))

    def reorder(self, rows: np.ndarray) -> None:
        """See `steps.Decoder`."""
        self.decoder.reorder(rows)


class Stepping:
    """The manifest's `live` facts, as rules."""

    def __init__(self, facts: LiveFacts, audio: AudioFacts, pad: int, bos: int | None) -> None:
        """`pad` and `bos` are ids of tokens."""
        self.facts, self.rate = facts, audio.rate
        self.pad, self.front = pad, [] if bos is None else [bos]

    def delay(self, ms: float | None) -> int:
        """Steps of so many milliseconds; None is as the checkpoint says.

        Raises:
            BadOption: they are no whole steps, none, or more than a minute.
        """
        if ms is None:
            return self.facts.delay
        step = 1000 * self.facts.step_samples / self.rate
        if isinstance(ms, bool) or not isinstance(ms, int | float):
            raise BadOption(f"delay is milliseconds, not {type(ms).__name__}")
        if not 0 < ms <= 1000 * MOST_DELAY or ms % step:
            raise BadOption(
                f"a delay is a multiple of {step:g} ms, up to {MOST_DELAY:g} s, not {ms:g} ms"
            )
        return int(ms / step)

    def prompt(self, delay: int) -> list[int]:
        """The tokens of the steps before the first that is said."""
        return self.front + [self.pad] * (self.facts.left + delay)

    def padded(self, pcm: np.ndarray, delay: int) -> np.ndarray:
        """A clip [samples] with the silence behind it."""
        return np.pad(pcm, (0, behind(self.facts, len(pcm), delay)))

    def asked(self, prompts: Sequence[Sequence[list[int]]]) -> None:
        """Refuse, with BadPrompt, words: `prompts` are each one's ids around its clip."""
        if any([*pieces] != [self.front, []] for pieces in prompts):
            raise BadPrompt("this model writes down what it hears and is asked nothing: transcribe")
