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
from wrappers.frontends.mel import AHEAD, HOP, RATE, Mel


class WindowMel(Wrapper):
    """pcm, pcm_lengths -> log_mel, audio_embeds_lengths, and with `counted` frames_lengths.

    A row is what it would be alone, whatever the others of its batch are.

    Counted, it is for a tower that leaves out what is behind a clip: of the last window there are
    only the clip's frames, rounded up to pairs, and the two that convolutions look ahead to. Two of
    zeros, as the convolutions' own padding is, stand behind each whole window, so that a tower may
    be fed by pieces of a window and two. `frames_lengths` counts a clip's frames in this layout.

    Args:
        mels: mel bins.
        window_samples: of a window; a multiple of what becomes a row.
        stack: frames of the encoder, two of the spectrogram's each, that become an embedding.
        most: windows of a clip.
        filled: whether frames at a clip's end that are no whole embedding become one with the
            silence behind them; else they are left out.
        counted: whether only the clip's frames are made, and counted; not together with `filled`.
    """

    role = "frontend"

    def __init__(
        self,
        mels: int,
        window_samples: int,
        *,
        stack: int,
        most: int,
        filled: bool = False,
        counted: bool = False,
    ) -> None:
        super().__init__()
        self.one = Mel(mels, window_samples)
        self.window, self.stack, self.counted = window_samples, stack, counted
        self.more = stack - 1 if filled else 0  # frames that an embedding may lack
        self.inputs = {
            "pcm": Port("float32", ("batch", "samples")),
            "pcm_lengths": Port("int64", ("batch",), counts="samples"),
        }
        self.outputs = {
            "log_mel": Port("float32", ("batch", mels, "frames")),
            "audio_embeds_lengths": Port("int64", ("batch",)),
        }
        if counted:
            self.outputs["frames_lengths"] = Port("int64", ("batch",))
        # What is compared has one window, two and, where there are as many, four.
        usual = min(window_samples + window_samples // 3, most * window_samples)
        self.spans = {"samples": Span(least_samples(stack, filled), usual, most * window_samples)}

    def forward(self, pcm: Tensor, pcm_lengths: Tensor) -> tuple[Tensor, ...]:
        """[batch, samples], [batch] -> [batch, mels, windows * window / hop], [batch].

        Counted: [batch, mels, frames], [batch], [batch].
        """
        windows = (pcm.shape[1] + self.window - 1) // self.window
        x = F.pad(pcm, (0, self.window))[:, : windows * self.window].reshape(-1, self.window)
        log = self.one(x)
        mels, each = log.shape[1:]
        log = log.reshape(pcm.shape[0], windows, mels, each).transpose(1, 2)
        frames = (pcm_lengths + (HOP - 1)) // HOP
        rows = (frames + (1 + 2 * self.more)) // 2 // self.stack
        if not self.counted:
            return log.reshape(pcm.shape[0], mels, windows * each), rows
        spaced = F.pad(log, (0, AHEAD)).reshape(pcm.shape[0], mels, windows * (each + AHEAD))
        longest = (pcm.shape[1] + HOP - 1) // HOP
        whole, pairs = longest // each, (longest % each + 1) // 2
        # An integer that is 1 where the last window becomes a row, else 0: a graph has no `if`.
        heard = 1 - 1 // (pairs // self.stack + 1)
        made = whole * (each + AHEAD) + heard * (2 * pairs + AHEAD)
        rest = frames % each
        behind = torch.where(rest > 2 * self.stack - 2, rest + AHEAD, torch.zeros_like(rest))
        return spaced[:, :, :made], rows, frames // each * (each + AHEAD) + behind


def least_samples(stack: int, filled: bool = False) -> int:
    """Samples of the shortest clip that becomes an embedding; transformers gives others none."""
    return 1 if filled else (2 * stack - 2) * HOP + 1


def tiny() -> WindowMel:
    """The smallest that computes something, for tests."""
    return WindowMel(80, 2 * RATE, stack=2, most=5, counted=True)
