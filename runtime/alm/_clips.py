"""Clips as a model takes them: read, cut into its windows where it hears no more, padded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from alm import audio
from alm._stages import Stages
from alm.errors import BadAudio

QUIET_SLACK = 2.0  # seconds before the latest cut in which the quietest place is sought
EACH, JOINED = "each", "joined"  # of a long clip: its windows are answered apart, or heard as one


class Rules:
    """What the manifest's `audio` says of clips."""

    def __init__(self, said: Mapping[str, Any]) -> None:
        self.rate, self.channel = int(said["rate"]), said["channel"]
        self.least, self.window = int(said["least_samples"]), int(said["window_samples"])
        self.joined = said.get("long", EACH) == JOINED

    def read(self, source: Any, max_seconds: float, stages: Stages) -> audio.Clip:
        """The clip at the model's rate; see `audio.read`."""
        return audio.read(source, self.rate, self.channel, max_seconds=max_seconds, told=stages.add)

    def windows(self, clip: audio.Clip, truncate: bool) -> Iterator[np.ndarray]:
        """Pieces [samples] that the model takes, each long enough for it.

        `truncate`: only the first window. Where windows are heard as one, there is one piece.
        """
        pcm = clip.pcm[: self.window] if truncate else clip.pcm
        if self.joined:
            yield self._padded(pcm)
            return
        slack = int(QUIET_SLACK * self.rate)
        for piece in audio.windows(len(pcm), self.window, pcm, slack):
            yield self._padded(pcm[piece])

    def one(self, clip: audio.Clip, truncate: bool) -> np.ndarray:
        """The clip as it stands in a prompt beside others.

        Raises:
            BadAudio: it is longer than the model hears at a time.
        """
        pieces = list(self.windows(clip, truncate))
        if len(pieces) > 1:
            raise BadAudio(
                f"a clip of {clip.seconds:.1f} s is longer than the {self.window / self.rate:g} s "
                "that this model hears at a time, and only alone can it be answered in pieces; "
                "cut it, or use --truncate"
            )
        return pieces[0]

    def notes(self, clips: Sequence[audio.Clip], truncated: bool) -> list[str]:
        """What was done to clips that are too short or too long."""
        found: list[str] = []
        least, window = self.least / self.rate, self.window / self.rate
        for clip in clips:
            if clip.seconds * self.rate < self.least:
                found.append(
                    f"{clip.seconds:.3g} s of audio were padded with silence to {least:g} s"
                )
            if truncated and clip.seconds > window:
                found.append(f"only the first {window:g} s of {clip.seconds:.1f} s were heard")
        return found

    def _padded(self, pcm: np.ndarray) -> np.ndarray:
        return pcm if len(pcm) >= self.least else np.pad(pcm, (0, self.least - len(pcm)))
