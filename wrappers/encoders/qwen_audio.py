"""Qwen-Audio's encoder: a Whisper that hears a clip as if nothing were behind it, not even silence.

No frame attends to what is behind the clip, and its convolutions see zeros there, where those of
Qwen2-Audio see the spectrogram of silence. Two frames become their mean before the last norm.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from alm.ports import Span
from wrappers import randomised
from wrappers.encoders import whisper
from wrappers.frontends.mel import HOP, RATE

TAGS = 2  # rows that the bridge puts around a clip's
LEAST = 3 * HOP  # samples of the shortest clip that is a row; the original fails at shorter ones


class QwenAudioEncoder(whisper.Whisper):
    """log_mel, pcm_lengths -> speech, audio_embeds_lengths.

    Weights have the names of transformers' WhisperEncoder. A row is what it is alone, whatever the
    others of its batch are: the original's convolutions see the longest clip's length in all rows.

    Args:
        config: Whisper's config.
        most: samples of the longest clip.
        pooled: without it the first half of the frames stands, unpooled, as the original has it.
    """

    def __init__(self, config: Mapping[str, Any], most: int, *, pooled: bool = True) -> None:
        super().__init__(config, pooled=True, cut=True)
        self.pooled = pooled
        self.spans["samples"] = Span(LEAST, min(10 * RATE, most), most)

    def forward(self, log_mel: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """[batch, mels, frames + 2], [batch] -> [batch, frames / 4, width], [batch].

        The second counts the rows of a clip with those that the bridge adds.
        """
        assert lengths is not None
        filled = (lengths // HOP + 1) // 2
        heard = torch.arange(log_mel.shape[2]) < 2 * filled[:, None]
        x = F.gelu(self.conv1(log_mel * heard[:, None].float()))
        count = log_mel.shape[2] // 2 - 1
        x = F.gelu(self.conv2(x))[:, :, :count].transpose(1, 2)
        x = x + self.embed_positions.weight[:count]
        real = torch.arange(count) < filled[:, None]
        padded = self.dialect.encoder_padding(real.float())
        for layer in self.layers:
            x = layer(x, padded)
        rows = count // 2
        if self.pooled:
            x = x[:, : 2 * rows].reshape(-1, rows, 2, x.shape[2]).mean(2)
        return self.layer_norm(x[:, :rows]), filled // 2 + TAGS


def build(config: Mapping[str, Any], most: int, *, pooled: bool = True) -> QwenAudioEncoder:
    """The encoder that a Whisper's config describes, its weights still to be filled in."""
    return QwenAudioEncoder(config, most, pooled=pooled).eval().requires_grad_(False)


def tiny() -> QwenAudioEncoder:
    """The smallest that computes something, with random weights, for tests."""
    sizes: dict[str, Any] = dict(
        d_model=32, encoder_layers=2, encoder_attention_heads=2, encoder_ffn_dim=48
    )
    sizes |= dict(num_mel_bins=80, max_source_positions=50)
    return randomised(build(sizes, RATE))
