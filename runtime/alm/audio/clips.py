"""Clips as a model takes them: read, cut into its windows where they are longer, padded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from alm.audio import reader
from alm.errors import BadAudio
from alm.facts import AudioFacts
from alm.joins.places import EXACT, QUIET, Place
from alm.joins.places import places as pauses
from alm.timings import Stages

# A window of its own makes a model say something, be there anything to hear or not. So none is made
# for less sound than can hold a word (0.3 s; the padding of an mp3 is below 0.06 s), or, where the
# answers read on and a word may not be lost, for less than any part of a word (25 ms, the length of
# a spectrogram's frame); nor for silence, 60 dB below the clip's loudest sample.
SLIVER, SLIVER_READ_ON = 0.3, 0.025  # seconds
SILENT = 1e-3
LEAST_LAST = 0.5  # seconds of the last window, where the others have room for the rest
BLOCK = 2**18  # samples looked at together
QUIET_SLACK = 2.0  # seconds before the latest cut in which the quietest place is sought
EACH, JOINED = "each", "joined"  # of a long clip: its windows are answered apart, or heard as one


class Piece(NamedTuple):
    """What is heard at once: samples at the model's rate, and where in the clip they begin."""

    pcm: np.ndarray  # float32 [samples]
    start: int
    samples: int  # of the clip; behind them there is only silence
    overlap: int = 0  # of these the first, which the piece before has too


class Rules:
    """The manifest's `audio` facts, as rules for clips."""

    def __init__(self, audio: AudioFacts) -> None:
        self.audio, self.rate = audio, audio.rate
        self.least, self.window = audio.least_samples, audio.window_samples
        self.joined = audio.long == JOINED
        self.most = 0 if self.joined else self.window  # samples of a piece; 0: any number

    def shorten(self, seconds: float) -> None:
        """Hear no longer pieces than that, even where the model could."""
        most = int(seconds * self.rate)
        if self.joined and most > self.window:
            most -= most % self.window  # the model pads to its window
        self.most = min(self.most or most, most)

    def read(self, source: Any, max_seconds: float, stages: Stages) -> reader.Clip:
        """The clip at the model's rate; see `audio.read`."""
        return reader.read(
            source, self.rate, self.audio.channel, max_seconds=max_seconds, on_stage=stages.add
        )

    def windows(
        self,
        clip: reader.Clip,
        truncate: bool,
        reads_on: bool = False,
        joins: str = EXACT,
        overlaps: bool = True,
    ) -> tuple[list[Piece], list[str]]:
        """Pieces that the model takes, each long enough for it; and what was left out.

        `truncate`: only the first window. `reads_on`: the answers to the pieces are one text, and
        with `joins` "quiet" they are cut in pauses, with `overlaps` where there are none. Where
        windows are heard as one, there is one piece and all of it is heard.
        """
        pcm = clip.pcm[: self.window] if truncate else clip.pcm
        if not self.most or len(pcm) <= self.most:
            return [self._piece(pcm, 0)], []
        silent = SILENT * _peak(pcm)
        whole, notes = self._shortened(pcm, silent, SLIVER_READ_ON if reads_on else SLIVER)
        slack, least = int(QUIET_SLACK * self.rate), int(LEAST_LAST * self.rate)
        if reads_on and joins == QUIET:
            places = pauses(whole, self.rate, self.most, least, overlaps)
        else:
            cuts = reader.windows(len(whole), self.most, whole, slack, least=least)
            places = [Place(cut.start, cut.stop) for cut in cuts]
        pieces = [self._piece(whole[p.start : p.stop], p.start, p.overlap) for p in places]
        audible = [p for p in pieces if _peak(whole[p.start :][: p.samples]) > silent] or pieces[:1]
        if lost := len(whole) - sum(piece.samples - piece.overlap for piece in audible):
            notes.append(f"{lost / self.rate:.3g} s of silence within the clip got no answer")
        return audible, notes

    def _shortened(
        self, pcm: np.ndarray, silent: float, sliver: float
    ) -> tuple[np.ndarray, list[str]]:
        """The clip without an end that would only be another window of silence, or a sliver."""
        end = _sound_ends(pcm, silent)
        notes: list[str] = []
        fits = -(-end // self.most) * self.most  # windows that hold all that is not silent
        if fits < len(pcm):
            notes.append(
                f"{(len(pcm) - fits) / self.rate:.3g} s of silence at the end got no answer"
            )
            pcm = pcm[:fits]
        over = end - (fits - self.most)  # samples of sound in the last of them
        if fits > self.most and over <= sliver * self.rate:
            notes.append(
                f"the last {over / self.rate:.2g} s are too short for an answer of their own, and "
                "were not heard"
            )
            pcm = pcm[: fits - self.most]
        return pcm, notes

    def one(self, clip: reader.Clip, truncate: bool) -> tuple[np.ndarray, list[str]]:
        """The clip as it stands in a prompt beside others, and what of it was left out.

        Raises:
            BadAudio: it is longer than the model hears at a time.
        """
        pieces, notes = self.windows(clip, truncate)
        if len(pieces) > 1:
            raise BadAudio(
                f"a clip of {clip.seconds:.1f} s is longer than the {self.most / self.rate:g} s "
                "that this model hears at a time, and only alone can it be answered in pieces; "
                "cut it, or use --truncate"
            )
        return pieces[0].pcm, notes

    def notes(self, clips: Sequence[reader.Clip], truncated: bool) -> list[str]:
        """What is odd about clips, and what was done to those too short or too long."""
        notes = [note for clip in clips for note in clip.notes]
        least, window = self.least / self.rate, self.window / self.rate
        for clip in clips:
            if clip.seconds * self.rate < self.least:
                notes.append(
                    f"{clip.seconds:.3g} s of audio were padded with silence to {least:g} s"
                )
            if truncated and clip.seconds > window:
                notes.append(f"only the first {window:g} s of {clip.seconds:.1f} s were heard")
        return notes

    def _piece(self, pcm: np.ndarray, start: int, overlap: int = 0) -> Piece:
        short = max(0, self.least - len(pcm))
        return Piece(np.pad(pcm, (0, short)) if short else pcm, start, len(pcm), overlap)


def _peak(pcm: np.ndarray) -> float:
    return max(float(pcm.max()), -float(pcm.min()))


def _sound_ends(pcm: np.ndarray, silent: float) -> int:
    """How many samples there are up to the last that is louder than `silent`; at least one."""
    for at in range(len(pcm), 0, -BLOCK):  # from the end, and no copy of an hour of sound
        start = max(0, at - BLOCK)
        loud = np.flatnonzero(np.abs(pcm[start:at]) > silent)
        if len(loud):
            return start + int(loud[-1]) + 1
    return 1
