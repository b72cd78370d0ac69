"""Whisper's encoder: a log-mel spectrogram in, one feature vector for every 20 ms out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from alm.ports import Port, Span
from wrappers import Wrapper, dialect, randomised
from wrappers.checkpoint import limits
from wrappers.frontends.mel import AHEAD, HOP, RATE
from wrappers.layers.audio_layers import Layer

USUAL = 1002  # frames of the spectrogram that backends tune for: 10 s
LEAST_POOLED = 2 * HOP + 1  # samples of the shortest clip that is a row of pairs of frames

# What transformers takes for a key that config.json leaves out.
DEFAULTS = {
    "num_mel_bins": 80,
    "max_source_positions": 1500,
    "d_model": 384,
    "encoder_layers": 4,
    "encoder_attention_heads": 6,
    "encoder_ffn_dim": 1536,
    "activation_function": "gelu",
}


class Whisper(Wrapper):
    """log_mel -> speech; weights have the names of transformers' WhisperEncoder.

    Args:
        config: Whisper's config.json. `scale_embedding` concerns the decoder alone.
        pooled: as Qwen2-Audio has it: no frame attends to the padding behind a clip's
            `pcm_lengths` samples, every two frames become their mean before the last norm, and
            `audio_embeds_lengths` gives how many rows of these are the clip's.
        cut: of a pooled one, that only the frames are computed that are given: two more than are
            wanted (see `Mel`'s `cut`), at most two more than the window's.
        windowed: pooled and cut, for a clip of several windows: `frames_lengths` gives how many
            frames of the spectrogram are the clip's, and two, in place of `pcm_lengths`. Whoever
            counts them (see `WindowMel`'s `counted`) knows the clip's rows.
    """

    role = "encoder"

    def __init__(
        self,
        config: Mapping[str, Any],
        *,
        pooled: bool = False,
        cut: bool = False,
        windowed: bool = False,
    ) -> None:
        super().__init__()
        self.dialect = dialect.current()
        self.opset = self.dialect.ENCODER_OPSET
        all_known = known(config, "Whisper's config")
        mels, frames, width = (
            all_known[key] for key in ("num_mel_bins", "max_source_positions", "d_model")
        )
        self.windowed, self.cut = windowed, cut or windowed
        self.frames = frames
        self.conv1 = nn.Conv1d(mels, width, kernel_size=3, padding=1)
        self.conv2 = nn.Conv1d(width, width, kernel_size=3, stride=2, padding=1)
        self.embed_positions = nn.Embedding(frames, width)
        self.layers = nn.ModuleList(
            Layer(all_known, "Whisper") for _ in range(all_known["encoder_layers"])
        )
        self.layer_norm = nn.LayerNorm(width)
        # Where silence is attended to, the window is the same for all: nothing else is dynamic.
        halved = frames // 2 if pooled else frames
        given, rows = ("frames", "rows") if self.cut else (2 * frames, halved)
        self.inputs = {"log_mel": Port("float32", ("batch", mels, given))}
        self.outputs = {"speech": Port("float32", ("batch", rows, width))}
        self.spans = {}
        if windowed:
            self.inputs["frames_lengths"] = Port("int64", ("batch",), counts="frames")
            self.pieces = "frames"
        elif pooled:
            most = 2 * frames * HOP
            self.inputs["pcm_lengths"] = Port("int64", ("batch",), counts="samples")
            self.outputs["audio_embeds_lengths"] = Port("int64", ("batch",))
            self.spans["samples"] = Span(LEAST_POOLED, min(10 * RATE, most), most)
        if self.cut:
            longest = 2 * frames + AHEAD
            self.spans["frames"] = Span(4 + AHEAD, min(USUAL, longest), longest)

    def forward(
        self, log_mel: Tensor, lengths: Tensor | None = None
    ) -> Tensor | tuple[Tensor, Tensor]:
        """[batch, mels, 2 * frames] -> [batch, frames, width].

        Pooled: the same and [batch] -> [batch, frames / 2, width], [batch]; cut: of 2 * frames + 2.
        Windowed: of 2 * frames + 2, and [batch] -> [batch, frames / 2, width].
        """
        x = F.gelu(self.conv1(log_mel))
        x = F.gelu(self.conv2(x))
        if lengths is None:
            x = x.transpose(1, 2) + self.embed_positions.weight
            for layer in self.layers:
                x = layer(x)
            return self.layer_norm(x)
        count = log_mel.shape[2] // 2 - 1 if self.cut else self.frames
        x = x[:, :, :count].transpose(1, 2) + self.embed_positions.weight[:count]
        filled = (lengths - (AHEAD - 1)) // 2 if self.windowed else heard_frames(lengths)
        real = torch.arange(count) < filled[:, None]
        padded = self.dialect.encoder_padding(real.float())
        for layer in self.layers:
            x = layer(x, padded)
        rows = count // 2
        pairs = x[:, : 2 * rows].reshape(-1, rows, 2, x.shape[2])
        speech = self.layer_norm(pairs.mean(2))
        return speech if self.windowed else (speech, filled // 2)


def heard_frames(pcm_lengths: Tensor) -> Tensor:
    """Samples of clips -> frames of the encoder (two of the spectrogram's) that they fill.

    transformers counts in another order, with n - 1 and n - 2, which no graph divides as Python
    does where they are below zero.
    """
    return ((pcm_lengths + (HOP - 1)) // HOP + 1) // 2


def build(
    config: Mapping[str, Any], *, pooled: bool = False, cut: bool = False, windowed: bool = False
) -> Whisper:
    """The encoder that Whisper's config.json describes, its weights still to be filled in."""
    part = Whisper(config, pooled=pooled, cut=cut, windowed=windowed)
    return part.eval().requires_grad_(False)


def known(config: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The encoder's settings, those that the config leaves out as transformers takes them.

    Raises:
        BadCheckpoint: a value of a wrong type or out of its limits; `where` names the file.
    """
    settings = {name: config[name] for name in DEFAULTS if config.get(name) is not None}
    limits.check(settings, where)
    return {**DEFAULTS, **settings}


def tiny() -> Whisper:
    """The smallest that computes something, with random weights, for tests."""
    sizes: dict[str, Any] = dict(
        d_model=32, encoder_layers=2, encoder_attention_heads=2, encoder_ffn_dim=48
    )
    part = build(sizes | dict(num_mel_bins=80, max_source_positions=50))
    return randomised(part)
