"""The log-mel spectrogram that GLM-4-voice's tokenizer hears (Zeng et al. 2024).

The numbers are Whisper's. A clip of one window is filled up to whole ids, and not to 30 s as for a
Whisper: it is mirrored there. A longer clip's windows are alone, and each is filled up whole.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from alm.ports import Port, Span
from wrappers import Wrapper
from wrappers.frontends.clip_mel import ClipMel
from wrappers.frontends.mel import HOP, RATE

STEP = 1280  # samples of an id: two strides of the convolutions, four frames pooled


class VoiceMel(Wrapper):
    """pcm, pcm_lengths -> voice_mel, frames_lengths.

    There are frames up to the longest clip's last whole id; `frames_lengths` counts those of which
    the first sample is the clip's. Each row is what it would be alone.

    Args:
        mels: mel bins.
        window: samples of a window; a multiple of STEP.
        most: windows of a clip.
    """

    role = "frontend"

    def __init__(self, mels: int, window: int, most: int) -> None:
        super().__init__()
        self.one, self.window = ClipMel(mels, STEP, window), window
        self.inputs = {
            "pcm": Port("float32", ("batch", "samples")),
            "pcm_lengths": Port("int64", ("batch",), counts="samples"),
        }
        self.outputs = {
            "voice_mel": Port("float32", ("batch", mels, "frames")),
            "frames_lengths": Port("int64", ("batch",), counts="frames"),
        }
        usual = min(window + window // 3, most * window)
        self.spans = {"samples": Span(1, usual, most * window)}

    def forward(self, pcm: Tensor, pcm_lengths: Tensor) -> tuple[Tensor, Tensor]:
        """[batch, samples], [batch] -> [batch, mels, 8 * ceil(samples / STEP)], [batch]."""
        batch, samples = pcm.shape
        windows = (samples + self.window - 1) // self.window
        x = F.pad(pcm, (0, self.window))[:, : windows * self.window]
        filled = (pcm_lengths + (STEP - 1)) // STEP * STEP
        filled = torch.where(pcm_lengths > self.window, self.window, filled).clamp(min=STEP)
        each = filled[:, None].expand(batch, windows).reshape(-1)
        log, _ = self.one(x.reshape(-1, self.window), each)
        mels, frames = log.shape[1:]
        log = log.reshape(batch, windows, mels, frames).transpose(1, 2)
        log = log.reshape(batch, mels, windows * frames)
        count = (samples + STEP - 1) // STEP * (STEP // HOP)
        return log[:, :, :count], (pcm_lengths + (HOP - 1)) // HOP


def tiny() -> VoiceMel:
    """The smallest that computes something, for tests."""
    return VoiceMel(20, 2 * RATE, 4)
