"""Qwen2.5-Omni's encoder: a Whisper over windows of 2 s, each alone, whose frames are paired.

A clip's log-mel spectrogram is cut into windows of `2 * n_window` frames. Each goes through both
convolutions by itself, has the first positions, and its frames attend to each other and to no
others. Then every two frames of the clip become their mean. So nothing crosses a window, but for
the pairs where `n_window` is odd: a longer clip is computed in pieces of whole windows and pairs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from alm.errors import BadCheckpoint
from alm.ports import Port, Span
from wrappers import Wrapper, dialect, randomised
from wrappers.encoders.qwen3_asr import sinusoids
from wrappers.layers.audio_layers import Layer

PIECE = 1600  # frames that are computed at a time, as near as whole windows come to it: 16 s
# What transformers takes for a key that config.json leaves out.
DEFAULTS: dict[str, Any] = {
    "num_mel_bins": 128,
    "encoder_layers": 32,
    "encoder_attention_heads": 20,
    "encoder_ffn_dim": 5120,
    "d_model": 1280,
    "activation_function": "gelu",
    "max_source_positions": 1500,
    "n_window": 100,
    "output_dim": 3584,
}


class Qwen25OmniEncoder(Wrapper):
    """log_mel, frames_lengths -> speech; weights have the names of Qwen2_5OmniAudioEncoder.

    Args:
        config: the encoder's config, as `DEFAULTS` has its keys. transformers computes nothing with
            `scale_embedding`.

    Raises:
        BadCheckpoint: sizes that do not go into each other.
    """

    role = "encoder"
    positions: Tensor

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        self.dialect = dialect.current()
        self.opset = self.dialect.ENCODER_OPSET
        known = {**DEFAULTS, **{k: config[k] for k in DEFAULTS if config.get(k) is not None}}
        _check(known)
        mels, width, each = (known[key] for key in ("num_mel_bins", "d_model", "n_window"))
        self.each, self.window = each, 2 * each
        self.conv1 = nn.Conv1d(mels, width, kernel_size=3, padding=1)
        self.conv2 = nn.Conv1d(width, width, kernel_size=3, stride=2, padding=1)
        self.register_buffer("positions", sinusoids(self.each, width), persistent=False)
        self.layers = nn.ModuleList(
            Layer(known, "Qwen2.5-Omni") for _ in range(known["encoder_layers"])
        )
        self.ln_post = nn.LayerNorm(width)
        self.pieces = "frames"
        self.inputs = {
            "log_mel": Port("float32", ("batch", mels, "frames")),
            "frames_lengths": Port("int64", ("batch",), counts="frames"),
        }
        self.outputs = {
            "speech": Port("float32", ("batch", "rows", width)),
            "audio_embeds_lengths": Port("int64", ("batch",)),
        }
        most = piece(self.each)
        # What is compared has a last window that is not whole, where a piece has several.
        self.spans = {"frames": Span(1, most - self.each // 2, most)}

    def forward(self, log_mel: Tensor, frames_lengths: Tensor) -> tuple[Tensor, Tensor]:
        """[batch, mels, frames], [batch] -> [batch, rows, width], [batch].

        Frames behind a clip's length must be zeros; what is behind its rows is of padding.
        """
        batch, mels, frames = log_mel.shape
        windows = (frames + (self.window - 1)) // self.window
        x = F.pad(log_mel, (0, self.window - 1))[:, :, : windows * self.window]
        x = x.reshape(batch, mels, windows, self.window).transpose(1, 2)
        x = x.reshape(batch * windows, mels, self.window)
        inside = torch.arange(windows * self.window) < frames_lengths[:, None]
        # The second convolution sees zeros behind a clip, as behind a window.
        x = F.gelu(self.conv1(x)) * inside.reshape(-1, 1, self.window).to(x.dtype)
        x = F.gelu(self.conv2(x)).transpose(1, 2) + self.positions
        filled = (frames_lengths + 1) // 2
        real = torch.arange(windows * self.each) < filled[:, None]
        padded = self.dialect.encoder_padding(real.reshape(-1, self.each).float())
        for layer in self.layers:
            x = layer(x, padded)
        width = x.shape[2]
        rows = windows * self.each // 2
        x = x.reshape(batch, windows * self.each, width)[:, : 2 * rows]
        return self.ln_post(x.reshape(batch, rows, 2, width).mean(2)), filled // 2


def piece(half: int) -> int:
    """Frames that are computed at a time: whole windows, and so many that pairs are whole too."""
    unit = 2 * half if half % 2 == 0 else 4 * half
    return max(1, PIECE // unit) * unit


def rows_of(frames: int) -> int:
    """Embeddings that so many frames of a clip become."""
    return (frames + 1) // 2 // 2


def build(config: Mapping[str, Any]) -> Qwen25OmniEncoder:
    """The encoder that the config describes, its weights still to be filled in."""
    return Qwen25OmniEncoder(config).eval().requires_grad_(False)


def _check(known: Mapping[str, Any]) -> None:
    half, positions, width = (known[k] for k in ("n_window", "max_source_positions", "d_model"))
    wrong = []
    if half > positions:
        wrong.append(f"n_window {half}, and there are max_source_positions {positions}")
    if width % 2 or width < 4:
        wrong.append(f"d_model {width}, which has no sines and cosines")
    if wrong:
        raise BadCheckpoint(f"Qwen2.5-Omni's audio_config says {'; '.join(wrong)}")


def tiny() -> Qwen25OmniEncoder:
    """The smallest that computes something, with random weights and pairs across windows."""
    sizes: dict[str, Any] = dict(
        d_model=32, encoder_layers=2, encoder_attention_heads=2, encoder_ffn_dim=48
    )
    return randomised(build(sizes | dict(num_mel_bins=20, n_window=25)))
