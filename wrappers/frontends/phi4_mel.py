"""The log-mel spectrogram of Phi-4-multimodal, laid out in the pieces that its encoder computes.

Frames are not centred and nothing is mirrored: what fills no frame at a clip's end is not heard.
Each frame is pre-emphasised alone, its first sample standing before itself.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from alm.ports import Port, Span
from wrappers import Wrapper
from wrappers.frontends.mel import RATE, fourier

FULL_SCALE = 2.0**15  # the original was made for 16-bit integers
QUIETEST = 1.0  # the least power that the logarithm sees, at that scale


@dataclass(frozen=True)
class Settings:
    """Those of the feature extractor, under its own names."""

    feature_size: int = 80
    hop_length: int = 160
    n_fft: int = 512
    win_length: int = 400
    preemphasis: float = 0.97
    mel_min_frequency: float = 0.0
    mel_max_frequency: float = 7690.0

    def faults(self) -> list[str]:
        """What of them has no meaning, in words."""
        sizes = ("hop_length", "win_length", "n_fft")
        wrong = [
            f"{name} {str(value)[:40]}, which is no whole number from 1 to 65536"
            for name in sizes
            if type(value := getattr(self, name)) is not int or not 0 < value <= 2**16
        ]
        if not wrong and not self.hop_length <= self.win_length <= self.n_fft:
            said = ", ".join(f"{name} {getattr(self, name)}" for name in sizes)
            wrong.append(f"{said}, of which none may be longer than the next")
        emphasis, low, high = self.preemphasis, self.mel_min_frequency, self.mel_max_frequency
        if any(type(number) not in (int, float) for number in (emphasis, low, high)) or not (
            0 <= emphasis <= 1 and 0 <= low < high <= RATE / 2
        ):
            wrong.append(
                f"preemphasis {str(emphasis)[:40]} and mel bins from {str(low)[:40]} to "
                f"{str(high)[:40]} Hz"
            )
        return wrong


class Phi4Mel(Wrapper):
    """pcm, pcm_lengths -> log_mel, frames_real, frames_lengths.

    The encoder hears pieces of `piece` frames, each alone but for the `lead` frames before it that
    its convolutions look back to. So the frames of a clip come in pieces of lead + piece: the lead
    is said again, and before the first piece there is none. `frames_real` is 1 at a frame of the
    clip, 0 where there is none. `frames_lengths` counts what is attended to: of a clip of one piece
    its own frames, of a longer one all frames of all its pieces, as the original fills its last.

    Args:
        settings: the extractor's.
        piece, lead: frames.
        most: samples of a clip.
    """

    role = "frontend"
    kernel: Tensor
    filters: Tensor

    def __init__(self, settings: Settings, *, piece: int, lead: int, most: int) -> None:
        super().__init__()
        self.hop, self.size = settings.hop_length, settings.win_length
        self.piece, self.lead = piece, lead
        constants = {"kernel": frame_kernel(settings), "filters": mel_filters(settings)}
        for name, value in constants.items():
            self.register_buffer(name, value.float(), persistent=False)
        self.inputs = {
            "pcm": Port("float32", ("batch", "samples")),
            "pcm_lengths": Port("int64", ("batch",), counts="samples"),
        }
        self.outputs = {
            "log_mel": Port("float32", ("batch", settings.feature_size, "frames")),
            "frames_real": Port("float32", ("batch", "frames")),
            "frames_lengths": Port("int64", ("batch",), counts="frames"),
        }
        usual = min(most, self.size + (piece + piece // 3) * self.hop)
        self.spans = {"samples": Span(self.size, usual, most)}

    def forward(self, pcm: Tensor, pcm_lengths: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """[batch, samples], [batch] -> [batch, mels, frames], [batch, frames], [batch]."""
        x = F.conv1d(pcm.unsqueeze(1), self.kernel, stride=self.hop)  # [batch, 2 * bins, frames]
        log = (self.filters @ (x * x)).clamp(min=QUIETEST).log()
        # In integers throughout: float32 could not count the samples of half an hour.
        counts = (pcm_lengths - (self.size - self.hop)) // self.hop
        own = (torch.arange(log.shape[2]) < counts[:, None]).to(log.dtype)
        pieces = (counts + (self.piece - 1)) // self.piece
        lengths = torch.where(pieces > 1, pieces * (self.lead + self.piece), counts + self.lead)
        return self._laid_out(log * own[:, None]), self._laid_out(own[:, None])[:, 0], lengths

    def _laid_out(self, x: Tensor) -> Tensor:
        """[batch, channels, frames] -> the same in pieces, each behind the end of the one before.

        A single piece is as long as the clip; of several the last is whole as well.
        """
        batch, channels, frames = x.shape
        pieces = (frames + (self.piece - 1)) // self.piece
        several = (2 * pieces - 2) // pieces  # 0 of one piece, 1 of more
        x = F.pad(x, (self.lead, self.piece))
        whole = pieces * self.piece
        before = x[:, :, :whole].reshape(batch, channels, pieces, self.piece)[..., : self.lead]
        own = x[:, :, self.lead : self.lead + whole].reshape(batch, channels, pieces, self.piece)
        both = torch.cat((before, own), -1).reshape(batch, channels, -1)
        return both[:, :, : pieces * self.lead + frames + several * (whole - frames)]


def frame_kernel(settings: Settings) -> Tensor:
    """What turns a frame's samples into its spectrum: [2 * bins, 1, win_length], float64."""
    size = settings.win_length
    one = torch.eye(size, dtype=torch.float64)
    previous = one[(torch.arange(size) - 1).clamp(min=0)]
    window = torch.hamming_window(size, periodic=False, dtype=torch.float64)
    rows = fourier(settings.n_fft // 2 + 1, size, settings.n_fft) * window
    return (FULL_SCALE * rows @ (one - settings.preemphasis * previous)).unsqueeze(1)


def mel_filters(settings: Settings) -> Tensor:
    """Kaldi's triangles, once for the cosines and once for the sines: [mels, 2 * bins], float64."""
    from transformers.audio_utils import mel_filter_bank  # heavy, and needed only here

    bank = mel_filter_bank(
        num_frequency_bins=settings.n_fft // 2 + 1,
        num_mel_filters=settings.feature_size,
        min_frequency=settings.mel_min_frequency,
        max_frequency=settings.mel_max_frequency,
        sampling_rate=RATE,
        mel_scale="kaldi",
        triangularize_in_mel_space=True,
    )
    return torch.from_numpy(bank).T.contiguous().repeat(1, 2)


def tiny() -> Phi4Mel:
    """The smallest that computes something, for tests."""
    return Phi4Mel(Settings(feature_size=20), piece=96, lead=8, most=4 * RATE)
