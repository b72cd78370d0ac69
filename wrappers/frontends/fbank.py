"""Kaldi's mel filterbank as BEATs wants it: raw samples in, normalised log energies out."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from alm.ports import Port, Span
from wrappers import Wrapper
from wrappers.frontends.mel import fourier

RATE = 16_000  # Hz
FRAME, HOP, SIZE = 400, 160, 512  # 25 ms, 10 ms, and the transform's points
LOW = 48  # bins below 1.5 kHz; see Fbank
BINS = SIZE // 2  # the Nyquist bin lies at the upper edge of the last filter, with weight zero
MELS = 128
LOWEST = 20.0  # Hz
PREEMPHASIS = 0.97
FULL_SCALE = 2.0**15  # Kaldi's samples are 16-bit integers
EPSILON = 1.1920929e-07  # the least energy, float32's epsilon
MEAN, DEVIATION = 15.41663, 6.55582  # of AudioSet; BEATs divides by twice the deviation


class Fbank(Wrapper):
    """pcm -> fbank, equal to torchaudio.compliance.kaldi.fbank in float64, then normalised.

    DC removal, pre-emphasis, window and DFT are linear in the frame: together they are one kernel.
    What float32 rounds away grows with the loudest thing that a kernel's row must cancel. Low bins
    are taken from the samples, where their row is small (pre-emphasis) and so a loud whistle does
    not reach them; high bins from differences of neighbours, where hum and offset are small. The
    empty bins of pure tones are then 5e-3 from float64, where either form alone is 4e-2 away.
    """

    role = "frontend"
    low: Tensor
    high: Tensor
    filters: Tensor

    def __init__(self, most_samples: int = 30 * RATE) -> None:
        super().__init__()
        kernel, bank = frame_kernel(), kaldi_filters()
        low, high = kernel[:, :LOW].flatten(0, 1), of_differences(kernel[:, LOW:].flatten(0, 1))
        self.register_buffer("low", low.float().unsqueeze(1), persistent=False)
        self.register_buffer("high", high.float().unsqueeze(1), persistent=False)
        # In the order of the kernels' rows: low cosines, low sines, high cosines, high sines.
        filters = torch.cat([bank[:, :LOW].repeat(1, 2), bank[:, LOW:].repeat(1, 2)], dim=1)
        self.register_buffer("filters", filters, persistent=False)
        self.inputs = {
            "pcm": Port("float32", ("batch", "samples")),
            "pcm_lengths": Port("int64", ("batch",), counts="samples"),
        }
        self.outputs = {
            "fbank": Port("float32", ("batch", "frames", MELS)),
            "fbank_lengths": Port("int64", ("batch",), counts="frames"),
        }
        least = FRAME + 15 * HOP  # 16 frames, one patch of BEATs
        self.spans = {"samples": Span(least, min(10 * RATE, most_samples), most_samples)}

    def forward(self, pcm: Tensor, pcm_lengths: Tensor) -> tuple[Tensor, Tensor]:
        """[batch, samples], [batch] -> [batch, frames, 128], [batch]: frames that a row fills."""
        level = pcm.mean(dim=1, keepdim=True)  # any constant would do: a frame's DC is removed
        low = F.conv1d((pcm - level).unsqueeze(1), self.low, stride=HOP)
        high = F.conv1d((pcm[:, 1:] - pcm[:, :-1]).unsqueeze(1), self.high, stride=HOP)
        x = torch.cat([low, high], dim=1)  # [batch, 2 * bins, frames]
        energy = self.filters @ (x * x)
        fbank = (energy.clamp(min=EPSILON).log() - MEAN) / (2 * DEVIATION)
        # 1 + (n - 400) // 160, in integers throughout: float16 could not count samples.
        lengths = (pcm_lengths - (FRAME - HOP)).clamp(min=0) // HOP
        return fbank.transpose(1, 2), lengths


def frame_kernel() -> Tensor:
    """What turns a frame's samples into its spectrum: [cosines and sines, bins, 400], float64."""
    one = torch.eye(FRAME, dtype=torch.float64)
    centre = one - 1.0 / FRAME
    previous = one[(torch.arange(FRAME) - 1).clamp(min=0)]  # the first sample precedes itself
    povey = torch.hann_window(FRAME, periodic=False, dtype=torch.float64) ** 0.85
    kernel = (fourier(BINS, FRAME, SIZE) * povey) @ (one - PREEMPHASIS * previous) @ centre
    return FULL_SCALE * kernel.view(2, BINS, FRAME)


def of_differences(kernel: Tensor) -> Tensor:
    """The same rows for differences of neighbours, [rows, n] -> [rows, n - 1].

    A row K sums to zero (DC removal), hence sum_j K[j] x[j] = sum_i S[i] (x[i] - x[i-1]) for i from
    1, with S[i] = sum_{j >= i} K[j].
    """
    return kernel.flip(1).cumsum(1).flip(1)[:, 1:]


def kaldi_filters() -> Tensor:
    """Triangles on the mel axis without area normalisation [128, bins].

    In float32, as torchaudio's get_mel_banks makes them (its filter 3 holds no bin and is zero).
    """

    def mel(hertz: float) -> float:
        return 1127.0 * math.log(1.0 + hertz / 700.0)

    lowest = mel(LOWEST)
    width = (mel(RATE / 2) - lowest) / (MELS + 1)
    number = torch.arange(MELS).unsqueeze(1)
    left, centre, right = (lowest + (number + edge) * width for edge in (0.0, 1.0, 2.0))
    bins = 1127.0 * (1.0 + (RATE / SIZE) * torch.arange(BINS) / 700.0).log().unsqueeze(0)
    rising, falling = (bins - left) / (centre - left), (right - bins) / (right - centre)
    return torch.minimum(rising, falling).clamp(min=0.0)


def tiny() -> Fbank:
    """The smallest that computes something, for tests."""
    return Fbank(2 * RATE)
