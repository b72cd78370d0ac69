"""Frames of a log-mel spectrogram side by side: the plainest features of which k-means makes units.

The spectrogram is that of a clip's own length, as Whisper's extractor has it without a window. What
a microphone and a voice add to all of a clip is taken off again: each bin's mean over the clip.
"""

from __future__ import annotations

import torch
from torch import Tensor

from alm.errors import BadOption
from alm.ports import Port, Span
from wrappers import Wrapper
from wrappers.frontends.clip_mel import USUAL, ClipMel
from wrappers.frontends.mel import HOP, RATE

LEAST = 2 * HOP  # samples of a clip: fewer cannot be mirrored at both ends


class StackedMel(Wrapper):
    """pcm, pcm_lengths -> speech, speech_lengths.

    A row of n samples is n / (hop stack) feature vectors, rounded down; zeros are behind them. A
    last stack that is not full is left out. Each row is what it would be alone.

    Args:
        mels: mel bins.
        stack: frames of 10 ms in one feature vector.
        most: samples of the longest clip.
        centred: each bin's mean over the clip's frames is taken off.

    Raises:
        BadOption: the longest clip has no vector.
    """

    role = "frontend"

    def __init__(self, mels: int, stack: int, most: int, *, centred: bool = True) -> None:
        super().__init__()
        least = least_samples(stack)
        if most < least:
            raise BadOption(f"clips of {most} samples have no {stack} frames of a spectrogram")
        self.one, self.stack, self.centred = ClipMel(mels, least, most), stack, centred
        self.inputs = {
            "pcm": Port("float32", ("batch", "samples")),
            "pcm_lengths": Port("int64", ("batch",), counts="samples"),
        }
        self.outputs = {
            "speech": Port("float32", ("batch", "frames", mels * stack)),
            "speech_lengths": Port("int64", ("batch",), counts="frames"),
        }
        self.spans = {"samples": Span(least, max(least, min(USUAL, most)), most)}

    def forward(self, pcm: Tensor, pcm_lengths: Tensor) -> tuple[Tensor, Tensor]:
        """[batch, samples], [batch] -> [batch, frames, mels * stack], [batch]."""
        log, frames = self.one(pcm, pcm_lengths)  # zeros behind a row's frames
        batch, mels, count = log.shape
        if self.centred:
            log = log - log.sum(2, keepdim=True) / frames[:, None, None].to(log.dtype)
        vectors, lengths = count // self.stack, frames // self.stack
        x = log[:, :, : vectors * self.stack].transpose(1, 2)
        x = x.reshape(batch, vectors, self.stack * mels)
        real = torch.arange(vectors) < lengths[:, None]
        return x * real[:, :, None].to(x.dtype), lengths


def least_samples(stack: int) -> int:
    """Samples that make one feature vector."""
    return max(LEAST, stack * HOP)


def vectors_of(stack: int, samples: int) -> int:
    """Feature vectors of a clip."""
    return samples // (stack * HOP)


def tiny() -> StackedMel:
    """The smallest that computes something, for tests."""
    return StackedMel(20, 3, 2 * RATE)
