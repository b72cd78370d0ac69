"""Whisper's log-mel spectrogram of a clip's own length, whose windows are encoded one by one.

As Ultravox's processor has it: the clip is filled with zeros up to a whole hop and mirrored there,
and its loudest value is that of all its windows. They are cut out of the finished spectrogram, so
that the frames beside a cut see across it.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from alm.errors import BadOption
from alm.ports import Port, Span
from wrappers import Wrapper
from wrappers.frontends.clip_mel import ClipMel
from wrappers.frontends.mel import HOP, MOST_WINDOWS

LEAST = 2 * HOP  # samples; the processor fills shorter clips with zeros


class ChunkMel(Wrapper):
    """pcm, pcm_lengths -> log_mel, frames_lengths, frames_kept, audio_embeds_lengths.

    A row is what it would be alone, whatever the others of its batch are; zeros are behind its
    `frames_lengths` frames. Of these and the zeros the encoder is given `frames_kept` as sound:
    exactly the clip where it has one window, and where it has several the zeros as well, with which
    the original fills the last of them.

    Args:
        mels: mel bins.
        window: frames of a window.
        stack: frames of the encoder, two of the spectrogram's each, that become an embedding.
    """

    role = "frontend"

    def __init__(self, mels: int, window: int, *, stack: int) -> None:
        super().__init__()
        if not 0 < 2 * stack <= window:
            raise BadOption(f"a window of {window} frames holds no row of {stack} pairs of them")
        samples = window * HOP
        self.one = ClipMel(mels, LEAST, MOST_WINDOWS * samples)
        self.window, self.each = window, 2 * stack
        self.inputs = {
            "pcm": Port("float32", ("batch", "samples")),
            "pcm_lengths": Port("int64", ("batch",), counts="samples"),
        }
        self.outputs = {
            "log_mel": Port("float32", ("batch", mels, "frames")),
            "frames_lengths": Port("int64", ("batch",), counts="frames"),
            "frames_kept": Port("int64", ("batch",), counts="frames"),
            "audio_embeds_lengths": Port("int64", ("batch",)),
        }
        # What is compared has one window, two and four.
        usual = samples + samples // 3
        self.spans = {"samples": Span(LEAST, usual, MOST_WINDOWS * samples)}

    def forward(self, pcm: Tensor, pcm_lengths: Tensor) -> tuple[Tensor, ...]:
        """[batch, samples], [batch] -> [batch, mels, frames], [batch], [batch], [batch]."""
        count = (pcm.shape[1] + (HOP - 1)) // HOP
        whole = F.pad(pcm, (0, HOP - 1))[:, : count * HOP]
        # Of lengths in integers: float32 could not count the samples of an hour.
        frames = (pcm_lengths + (HOP - 1)) // HOP
        log_mel, _ = self.one(whole, frames * HOP)
        # The last window goes on to the end of a row of the encoder's frames, or to its own.
        before = (count - 1) // self.window * self.window
        ends = before + (count - before + (self.each - 1)) // self.each * self.each
        log_mel = F.pad(log_mel, (0, self.window))[:, :, : before + self.window][:, :, :ends]
        windows = (frames + (self.window - 1)) // self.window
        kept = torch.where(windows > 1, log_mel.shape[2], frames)
        last = frames - (windows - 1) * self.window
        rows = (windows - 1) * self._rows(self.window) + self._rows(last)
        return log_mel, frames, kept, rows

    def _rows(self, frames: int | Tensor) -> int | Tensor:
        """Embeddings of so many frames of a window."""
        return (frames + (self.each - 1)) // self.each


def rows_of(window: int, stack: int) -> int:
    """Embeddings of a whole window of so many frames."""
    return -(-window // (2 * stack))


def tiny() -> ChunkMel:
    """The smallest that computes something, for tests: windows of 2 s that are no whole rows."""
    return ChunkMel(20, 200, stack=3)
