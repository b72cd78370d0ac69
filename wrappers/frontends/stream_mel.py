"""The log-mel spectrogram of sound that comes piece by piece, of which it remembers the end.

Whisper's numbers, but that the loudest value is no clip's: it is given, so no sound changes what
was said of the sound before it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from alm.errors import BadOption
from alm.ports import CACHE_IN, CACHE_OUT, Port, Span
from wrappers import Wrapper
from wrappers.frontends.mel import FLOOR, HOP, RANGE, mel_filters, mel_power, windowed_fourier

STATE = "pcm"
USUAL, MOST = 100, 750  # frames of a piece: 1 s, and 7.5


class StreamMel(Wrapper):
    """pcm, what was before it -> log_mel, what comes before the next.

    A frame is `n_fft` samples, the last of them new: the state is the `n_fft - hop` before a piece.
    transformers centres a frame on a multiple of the hop, so a stream whose first sample is number
    n_fft / 2 - hop of the sound, behind a state of zeros, has its frames; that far they look ahead.

    Args:
        mels: mel bins.
        loudest: the logarithm (to base 10) that the floor lies 8 below, of whatever sound.
    """

    role = "frontend"
    kernel: Tensor
    filters: Tensor

    def __init__(self, mels: int, loudest: float, *, n_fft: int = 400, hop: int = HOP) -> None:
        super().__init__()
        if n_fft // 2 <= hop:
            raise BadOption(f"frames of {n_fft} samples, {hop} apart, do not look ahead")
        self.hop, self.kept, self.floor = hop, n_fft - hop, loudest - RANGE
        constants = {
            "kernel": windowed_fourier(n_fft).float(),
            "filters": mel_filters(mels, n_fft).repeat(1, 2).float(),
        }
        for name, value in constants.items():
            self.register_buffer(name, value, persistent=False)
        self.inputs = {
            "pcm": Port("float32", ("batch", "samples")),
            CACHE_IN + STATE: Port("float32", ("batch", self.kept)),
        }
        self.outputs = {
            "log_mel": Port("float32", ("batch", mels, "frames")),
            CACHE_OUT + STATE: Port("float32", ("batch", self.kept)),
        }
        self.spans = {"samples": Span(hop, USUAL * hop, MOST * hop)}

    def forward(self, pcm: Tensor, before: Tensor) -> tuple[Tensor, Tensor]:
        """[batch, samples], [batch, n_fft - hop] -> [batch, mels, samples // hop], as `before`."""
        x = torch.cat((before, pcm), 1)
        power = mel_power(x, self.kernel, self.filters, self.hop)
        log = power.clamp(min=FLOOR).log10().clamp(min=self.floor)
        return (log + 4.0) / 4.0, x[:, pcm.shape[1] :]


def tiny() -> StreamMel:
    """The smallest that computes something, for tests."""
    return StreamMel(20, 1.5)
