"""Whisper's log-mel spectrogram as a graph: raw samples in, the same features in every language."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from alm.errors import BadOption
from alm.ports import Port, Span
from wrappers import Wrapper

RATE = 16_000  # Hz
HOP = 160  # samples from frame to frame
AHEAD = 2  # frames that Whisper's convolutions see behind a clip's last pair
FLOOR = 1e-10  # power; the quietest that the logarithm sees
RANGE = 8.0  # decades of power below the clip's loudest value that are kept
MOST_WINDOWS = 20  # of a clip that is encoded whole, for backends that need a bound: 10 minutes


class Mel(Wrapper):
    """pcm -> log_mel, as WhisperFeatureExtractor computes it (zeros up to the whole window).

    Args:
        mels: mel bins; 80, or 128 for large-v3 and turbo.
        window_samples: samples of the window that every clip is padded to; a multiple of `hop`.
        cut: only the frames that a tower needs which leaves out what is behind a clip: the clip's
            own, rounded up to pairs, and two that its convolutions look ahead to. Behind the
            window these are zeros, as the convolutions' own padding is. The window still decides
            what is mirrored at its end.
        rows: of embeddings that a window becomes, where a clip of any length is encoded as one.
            Then zeros go up to a multiple of the window, the loudest value is that of the whole
            clip, and `audio_embeds_lengths` gives for `pcm_lengths` how many embeddings a row has.
            0: a clip is one window.

    Where clips are encoded whole, those of a batch must have as many windows each: what is mirrored
    at the end of a clip is otherwise not what it is alone. No clip may be empty.
    """

    role = "frontend"
    kernel: Tensor
    filters: Tensor
    before: Tensor
    after: Tensor

    def __init__(
        self,
        mels: int = 80,
        window_samples: int = 30 * RATE,
        n_fft: int = 400,
        hop: int = HOP,
        *,
        rows: int = 0,
        cut: bool = False,
    ) -> None:
        super().__init__()
        if window_samples % hop or window_samples <= n_fft:
            raise BadOption(
                f"the window of {window_samples} samples must be a multiple of the hop {hop} "
                f"and longer than the transform of {n_fft}"
            )
        self.window, self.hop, self.rows, self.cut = window_samples, hop, rows, cut
        self.n_fft = n_fft
        half = n_fft // 2
        # Frames are centred on multiples of the hop, so the signal is mirrored at both ends. The
        # extractor drops its last frame; not mirroring what only that frame sees never makes it.
        mirrored_right = n_fft - half - hop
        self.tail = window_samples - hop - half  # where the window's last frame begins
        constants = {
            "kernel": windowed_fourier(n_fft),
            "filters": mel_filters(mels, n_fft).repeat(1, 2),  # once for the cosines, once sines
            "before": torch.arange(half, 0, -1),
            "after": window_samples - 2 - torch.arange(max(mirrored_right, 0)),
        }
        for name, value in constants.items():
            value = value.float() if value.is_floating_point() else value
            self.register_buffer(name, value, persistent=False)
        frames = "frames" if rows or cut else window_samples // hop
        self.inputs = {"pcm": Port("float32", ("batch", "samples"))}
        self.outputs = {"log_mel": Port("float32", ("batch", mels, frames))}
        self.spans = {"samples": Span(n_fft, min(10 * RATE, window_samples), window_samples)}
        if rows:
            self.inputs["pcm_lengths"] = Port("int64", ("batch",), counts="samples")
            self.outputs["audio_embeds_lengths"] = Port("int64", ("batch",))
            usual = (
                window_samples + window_samples // 3
            )  # so that what is compared has two and four
            self.spans = {"samples": Span(1, usual, MOST_WINDOWS * window_samples)}

    def forward(
        self, pcm: Tensor, pcm_lengths: Tensor | None = None
    ) -> Tensor | tuple[Tensor, Tensor]:
        """[batch, samples <= window] -> [batch, mels, window / hop].

        With `rows`: [batch, samples], [batch] -> [batch, mels, frames], [batch].
        """
        if self.cut:
            return self._cut(pcm)
        if pcm_lengths is None:
            x = F.pad(pcm, (0, self.window))[:, : self.window]
            return self._log_mel(x, x)
        windows = (pcm.shape[1] + self.window - 1) // self.window
        x = F.pad(pcm, (0, self.window))[:, : windows * self.window]
        # Of lengths in integers: float32 could not count the samples of an hour.
        counts = ((pcm_lengths + (self.window - 1)) // self.window).clamp(min=1)
        return self._log_mel(x, x[:, -self.window :]), counts * self.rows

    def _log_mel(self, x: Tensor, last: Tensor) -> Tensor:
        """Whole windows [batch, samples], the last of them [batch, window] -> the spectrogram."""
        x = torch.cat([x.index_select(1, self.before), x, last.index_select(1, self.after)], dim=1)
        return self._scaled(self._power(x))

    def _cut(self, pcm: Tensor) -> Tensor:
        """[batch, samples <= window] -> [batch, mels, 2 * pairs of the clip's frames + 2]."""
        samples, window = pcm.shape[1], self.window
        pairs = ((samples + self.hop - 1) // self.hop + 1) // 2
        count = 2 * pairs + AHEAD
        # The frames begin half a transform before the clip, mirrored there.
        padded = F.pad(pcm, (0, max(window, 4 * self.hop + self.n_fft)))
        x = torch.cat([padded.index_select(1, self.before), padded], dim=1)
        power = self._power(x[:, : (count - 1) * self.hop + self.n_fft])
        # The window's last frame sees its mirrored end.
        end = padded[:, :window]
        tail = torch.cat([end[:, self.tail :], end.index_select(1, self.after)], dim=1)
        at = torch.arange(count)
        power = torch.where(at == window // self.hop - 1, self._power(tail), power)
        inside = (at < window // self.hop).to(power.dtype)
        return self._scaled(power * inside) * inside

    def _power(self, x: Tensor) -> Tensor:
        return mel_power(x, self.kernel, self.filters, self.hop)

    @staticmethod
    def _scaled(power: Tensor) -> Tensor:
        log = power.clamp(min=FLOOR).log10()
        log = torch.maximum(log, log.amax(dim=(1, 2), keepdim=True) - RANGE)
        return (log + 4.0) / 4.0


def mel_power(x: Tensor, kernel: Tensor, filters: Tensor, hop: int) -> Tensor:
    """[batch, samples] -> [batch, mels, frames], through `windowed_fourier` and `mel_filters`."""
    x = F.conv1d(x.unsqueeze(1), kernel, stride=hop)  # [batch, 2 * bins, frames]
    return filters @ (x * x)


def fourier(bins: int, taps: int, size: int) -> Tensor:
    """Rows of cosines, then of minus sines: the first bins of a DFT [2 * bins, taps], float64."""
    turns = torch.outer(torch.arange(bins), torch.arange(taps)) % size  # exact in integers
    angles = turns.double() * (2 * math.pi / size)
    return torch.cat([angles.cos(), -angles.sin()])


def windowed_fourier(n_fft: int, taps: int = 0) -> Tensor:
    """The DFT under a periodic Hann window as a convolution's kernel [2 * bins, 1, taps].

    A window of fewer `taps` than the DFT stands in its middle among zeros, which are left out: that
    turns the phase, and no power.
    """
    taps = taps or n_fft
    window = torch.hann_window(taps, periodic=True, dtype=torch.float64)
    return (fourier(n_fft // 2 + 1, taps, n_fft) * window).unsqueeze(1)


def mel_filters(mels: int, n_fft: int, *, htk: bool = False) -> Tensor:
    """Slaney's filters with unit area [mels, bins], or HTK's with unit height, float64."""
    from transformers.audio_utils import mel_filter_bank  # heavy, and needed only here

    bank = mel_filter_bank(
        num_frequency_bins=n_fft // 2 + 1,
        num_mel_filters=mels,
        min_frequency=0.0,
        max_frequency=RATE / 2,
        sampling_rate=RATE,
        norm=None if htk else "slaney",
        mel_scale="htk" if htk else "slaney",
    )
    return torch.from_numpy(bank).T.contiguous()


def tiny() -> Mel:
    """The smallest that computes something, for tests."""
    return Mel(80, 2 * RATE)
