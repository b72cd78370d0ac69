"""The log-mel spectrogram of a clip's own length, two frames side by side.

As Granite Speech's feature extractor has it, which is torchaudio's MelSpectrogram: HTK's filters, a
window of 25 ms in a transform of 32, a frame on every hop from a clip's first sample to its end.
"""

from __future__ import annotations

import torch
from torch import Tensor

from alm.ports import Port
from wrappers.frontends.clip_mel import ClipMel
from wrappers.frontends.mel import HOP, RATE

FFT, TAPS = 512, 400  # samples of the transform, and of a frame in it
LEAST = FFT // 2 + 1  # samples; the original cannot mirror the ends of fewer


class PairedMel(ClipMel):
    """pcm, pcm_lengths -> log_mel, pairs_lengths.

    A row of n samples is (n // hop + 1) // 2 pairs of frames; an odd last frame is left out, though
    it may hold the row's loudest value. Zeros are behind a row, which is what it would be alone.

    Args:
        mels: mel bins; a pair has twice as many numbers.
        most: samples of a clip.
    """

    def __init__(self, mels: int, most: int) -> None:
        super().__init__(mels, LEAST, most, n_fft=FFT, taps=TAPS, htk=True, closed=True)
        self.outputs = {
            "log_mel": Port("float32", ("batch", "pairs", 2 * mels)),
            "pairs_lengths": Port("int64", ("batch",), counts="pairs"),
        }

    def forward(self, pcm: Tensor, pcm_lengths: Tensor) -> tuple[Tensor, Tensor]:
        """[batch, samples], [batch] -> [batch, pairs, 2 * mels], [batch]."""
        log_mel, frames = super().forward(pcm, pcm_lengths)
        batch, mels, count = log_mel.shape
        pairs, lengths = count // 2, frames // 2
        x = log_mel.transpose(1, 2)[:, : 2 * pairs].reshape(batch, pairs, 2 * mels)
        real = torch.arange(pairs) < lengths[:, None]
        return x * real[..., None].float(), lengths


def pairs_of(samples: int) -> int:
    """Pairs of frames of a clip."""
    return (samples // HOP + 1) // 2


def tiny() -> PairedMel:
    """The smallest that computes something, for tests."""
    return PairedMel(20, 4 * RATE)
