"""Whisper's log-mel spectrogram of a clip amid silence, of which the clip's own frames are kept.

As Qwen2.5-Omni's processor has it: a clip is padded with zeros to the extractor's window, and the
attention mask then takes the silence off again. So the last frames see zeros and no mirrored end,
and the loudest value may be that of a frame behind the clip.
"""

from __future__ import annotations

import torch
from torch import Tensor

from alm.ports import Port
from wrappers import Wrapper
from wrappers.frontends.mel import HOP, RATE, Mel


class MaskedMel(Wrapper):
    """pcm, pcm_lengths -> log_mel, frames_lengths.

    A row of n samples is n / hop frames, rounded up; zeros are behind them. Each row is what it
    would be alone.

    Args:
        mels: mel bins.
        window_samples: of the longest clip, to which the original pads every other.
    """

    role = "frontend"

    def __init__(self, mels: int, window_samples: int) -> None:
        super().__init__()
        self.one = Mel(mels, window_samples, cut=True)
        self.inputs = {
            "pcm": Port("float32", ("batch", "samples")),
            "pcm_lengths": Port("int64", ("batch",), counts="samples"),
        }
        self.outputs = {
            "log_mel": Port("float32", ("batch", mels, "frames")),
            "frames_lengths": Port("int64", ("batch",), counts="frames"),
        }
        self.spans = self.one.spans

    def forward(self, pcm: Tensor, pcm_lengths: Tensor) -> tuple[Tensor, Tensor]:
        """[batch, samples], [batch] -> [batch, mels, samples / hop rounded up], [batch]."""
        count = (pcm.shape[1] + (HOP - 1)) // HOP
        frames = (pcm_lengths + (HOP - 1)) // HOP
        log = self.one(pcm)[:, :, :count]
        real = torch.arange(count) < frames[:, None]
        return log * real[:, None].to(log.dtype), frames


def tiny() -> MaskedMel:
    """The smallest that computes something, for tests."""
    return MaskedMel(20, 2 * RATE)
