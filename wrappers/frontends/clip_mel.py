"""The log-mel spectrogram of a clip's own length: no window, no padding to one.

As Qwen3-ASR's feature extractor has it; the numbers are Whisper's. Granite Speech's has other
filters, a shorter window and a frame more: `paired_mel`.
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
    """pcm, pcm_lengths -> log_mel, frames_lengths (, short).

    A row of n samples is n // hop frames; zeros are behind them. Each row is what it would be
    alone: its end is mirrored where it is, and its loudest value is its own.

    Args:
        mels: mel bins.
        least, most: samples of a clip.
        n_fft: of the transform.
        taps: samples of a frame, in the middle of the transform's; by default as many.
        htk: HTK's filters, of height one, in the place of Slaney's, of area one.
        closed: a frame more, n // hop + 1: the last is centred at most a hop before the end.
        brief: frames; `short` is 1 where a clip has fewer, also for an encoder that is given it in
            pieces. 0: there is no such output.
    """

    role = "frontend"
    kernel: Tensor
    filters: Tensor
    before: Tensor
    taps: Tensor

    def __init__(
        self,
        mels: int,
        least: int,
        most: int,
        *,
        n_fft: int = 400,
        hop: int = HOP,
        taps: int = 0,
        htk: bool = False,
        closed: bool = False,
        brief: int = 0,
    ) -> None:
        super().__init__()
        taps = taps or n_fft
        if least <= max(n_fft // 2, taps // 2, hop):
            raise BadOption(f"clips of {least} samples have no frame of {n_fft} mirrored at an end")
        self.hop, self.reach, self.closed = hop, taps // 2, int(closed)
        self.brief = brief
        self.tails = 2 if closed else 1  # frames that may see behind a row's end
        filters = mel_filters(mels, n_fft, htk=htk).repeat(1, 2)  # for cosines, then sines
        constants = {
            "kernel": windowed_fourier(n_fft, taps).float(),
            "filters": filters.float(),
            "before": torch.arange(self.reach, 0, -1),
            "taps": torch.arange(taps) - self.reach,
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
        if brief:
            self.outputs["short"] = Port("int64", ("batch",), below=2)
        self.spans = {"samples": Span(least, min(USUAL, most), most)}

    def forward(self, pcm: Tensor, pcm_lengths: Tensor) -> tuple[Tensor, ...]:
        """[batch, samples], [batch] -> [batch, mels, samples // hop (+ 1 if closed)], [batch].

        And [batch], if `brief`.
        """
        frames = pcm_lengths // self.hop + self.closed
        count = pcm.shape[1] // self.hop + self.closed
        x = torch.cat([pcm.index_select(1, self.before), pcm], dim=1)
        x = F.pad(x, (0, self.reach))[:, : (count - 1) * self.hop + 2 * self.reach]
        power = self._power(x)
        # The frames that a row's end lies in: only the last, or the last two, may see behind it.
        at = torch.arange(count) - (frames - 1)[:, None]
        ends = pcm_lengths[:, None] - 1
        for back in range(self.tails):
            place = (frames - 1 - back)[:, None] * self.hop + self.taps
            # Mirrored at the row's end, and a short row's at its start as well.
            mirrored = (ends - (ends - place).abs()).abs()
            power = torch.where((at == -back)[:, None], self._power(pcm.gather(1, mirrored)), power)
        log = power.clamp(min=FLOOR).log10()
        real = (at <= 0)[:, None]
        quietest = torch.full_like(log[:, :1, :1], -100.0)
        loudest = torch.where(real, log, quietest).amax(dim=(1, 2), keepdim=True)
        log = (torch.maximum(log, loudest - RANGE) + 4.0) / 4.0
        log = log * real.float()
        return (log, frames, (frames < self.brief).long()) if self.brief else (log, frames)

    def _power(self, x: Tensor) -> Tensor:
        return mel_power(x, self.kernel, self.filters, self.hop)


def tiny() -> ClipMel:
    """The smallest that computes something, for tests."""
    return ClipMel(20, 8000, 4 * RATE)
