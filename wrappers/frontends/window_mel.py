"""Whisper's log-mel spectrogram of a clip of several windows, each of which is alone.

As the processors of Audio Flamingo 3 and GLM-ASR have it: a window is mirrored at its own ends, and
its loudest value is its own. Zeros fill the last one.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from alm.ports import Port, Span
from wrappers import Wrapper
from wrappers.frontends.mel import HOP, RATE, Mel


class WindowMel(Wrapper):
    """pcm, pcm_lengths -> log_mel, audio_embeds_lengths, and with `counted` window_frames.

    A row is what it would be alone, whatever the others of its batch are.

    Args:
        mels: mel bins.
        window_samples: of a window; a multiple of what becomes a row.
        stack: frames of the encoder, two of the spectrogram's each, that become an embedding.
        most: windows of a clip.
        counted: whether `window_frames` gives how many frames of each window are the clip's.
    """

    role = "frontend"

    def __init__(
        self, mels: int, window_samples: int, *, stack: int, most: int, counted: bool = False
    ) -> None:
        super().__init__()
        self.one = Mel(mels, window_samples)
        self.window, self.stack, self.counted = window_samples, stack, counted
        self.inputs = {
            "pcm": Port("float32", ("batch", "samples")),
            "pcm_lengths": Port("int64", ("batch",), counts="samples"),
        }
        self.outputs = {
            "log_mel": Port("float32", ("batch", mels, "frames")),
            "audio_embeds_lengths": Port("int64", ("batch",)),
        }
        if counted:
            self.outputs["window_frames"] = Port("int64", ("batch", "windows"))
        # What is compared has one window, two and, where there are as many, four.
        usual = min(window_samples + window_samples // 3, most * window_samples)
        self.spans = {"samples": Span(least_samples(stack), usual, most * window_samples)}

    def forward(self, pcm: Tensor, pcm_lengths: Tensor) -> tuple[Tensor, ...]:
        """[batch, samples], [batch] -> [batch, mels, windows * window / hop], [batch].

        Counted: [batch, windows] as well.
        """
        windows = (pcm.shape[1] + self.window - 1) // self.window
        x = F.pad(pcm, (0, self.window))[:, : windows * self.window].reshape(-1, self.window)
        log = self.one(x)
        mels, each = log.shape[1:]
        log = log.reshape(pcm.shape[0], windows, mels, each).transpose(1, 2)
        frames = (pcm_lengths + (HOP - 1)) // HOP
        made = log.reshape(pcm.shape[0], mels, windows * each), (frames + 1) // 2 // self.stack
        if not self.counted:
            return made
        return *made, (frames[:, None] - torch.arange(windows) * each).clamp(0, each)


def least_samples(stack: int) -> int:
    """Samples of the shortest clip that becomes an embedding; transformers gives others none."""
    return (2 * stack - 2) * HOP + 1


def tiny() -> WindowMel:
    """The smallest that computes something, for tests."""
    return WindowMel(80, 2 * RATE, stack=2, most=5, counted=True)
