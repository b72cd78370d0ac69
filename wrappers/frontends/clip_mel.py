"""The log-mel spectrogram of a clip's own length: no window, no padding to one.

As Qwen3-ASR's feature extractor has it; the numbers are Whisper's.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from alm.errors import BadOption
from alm.ports import Port, Span
from wrappers import Wrapper
from wrappers.frontends.mel import FLOOR, HOP, RANGE, RATE, mel_filters, mel_power, windowed_fourier

USUAL = 10 * RATE  # samples that backends tune for


class ClipMel(Wrapper):
    """pcm, pcm_lengths -> log_mel, frames_lengths.

    A row of n samples is n // hop frames; zeros are behind them. Each row is what it would be
    alone: its end is mirrored where it is, and its loudest value is its own.

    Args:
        mels: mel bins.
        least, most: samples of a clip.
    """

    role = "frontend"
    kernel: Tensor
    filters: Tensor
    before: Tensor
    taps: Tensor

    def __init__(
        self, mels: int, least: int, most: int, *, n_fft: int = 400, hop: int = HOP
    ) -> None:
        super().__init__()
        if least <= n_fft:
            raise BadOption(f"clips of {least} samples have no frame of {n_fft} mirrored at an end")
        self.hop, self.reach = hop, n_fft // 2
        constants = {
            "kernel": windowed_fourier(n_fft).float(),
            "filters": mel_filters(mels, n_fft).repeat(1, 2).float(),  # for cosines, then sines
            "before": torch.arange(self.reach, 0, -1),
            "taps": torch.arange(n_fft) - self.reach,
        }
        for name, value in constants.items():
            self.register_buffer(name, value, persistent=False)
        self.inputs = {
            "pcm": Port("float32", ("batch", "samples")),
            "pcm_lengths": Port("int64", ("batch",), counts="samples"),
        }
        self.outputs = {
            "log_mel": Port("float32", ("batch", mels, "frames")),
            "frames_lengths": Port("int64", ("batch",), counts="frames"),
        }
        self.spans = {"samples": Span(least, min(USUAL, most), most)}

    def forward(self, pcm: Tensor, pcm_lengths: Tensor) -> tuple[Tensor, Tensor]:
        """[batch, samples], [batch] -> [batch, mels, samples // hop], [batch]."""
        frames = pcm_lengths // self.hop
        count = pcm.shape[1] // self.hop
        x = torch.cat([pcm.index_select(1, self.before), pcm], dim=1)
        x = F.pad(x, (0, self.reach))[:, : (count - 1) * self.hop + 2 * self.reach]
        power = self._power(x)
        # The frames that a row's end lies in: only the last may see behind it, by less than a hop.
        place = (frames - 1)[:, None] * self.hop + self.taps
        ends = pcm_lengths[:, None] - 1
        last = self._power(pcm.gather(1, ends - (ends - place).abs()))
        at = torch.arange(count) - (frames - 1)[:, None]
        power = torch.where((at == 0)[:, None], last, power)
        log = power.clamp(min=FLOOR).log10()
        real = (at <= 0)[:, None]
        quietest = torch.full_like(log[:, :1, :1], -100.0)
        loudest = torch.where(real, log, quietest).amax(dim=(1, 2), keepdim=True)
        log = (torch.maximum(log, loudest - RANGE) + 4.0) / 4.0
        return log * real.float(), frames

    def _power(self, x: Tensor) -> Tensor:
        return mel_power(x, self.kernel, self.filters, self.hop)


def tiny() -> ClipMel:
    """The smallest that computes something, for tests."""
    return ClipMel(20, 8000, 4 * RATE)
