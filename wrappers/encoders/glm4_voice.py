"""The encoder of GLM-4-voice's tokenizer (Zeng et al. 2024): a Whisper that hears a block ahead.

Its convolutions see no later frame, and a frame attends to all before it and to those of its block
of 200. Part of the way up four frames become their mean, 12.5 rows a second, which
`frontends.nearest_code` makes ids of. Nothing crosses a window of 30 s.
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
from wrappers.checkpoint import limits
from wrappers.encoders import whisper
from wrappers.layers.attention import NEVER
from wrappers.layers.audio_layers import Layer

POOL = 4  # frames of a row
USUAL = 1000  # frames of the spectrogram that backends tune for: 10 s
# The settings beside a Whisper's own; those that are named here and not done have one value.
DEFAULTS: dict[str, Any] = {
    "quantize_position": 16,
    "quantize_vocab_size": 16384,
    "quantize_causal_block_size": 200,
    "pooling_position": 16,
    "pooling_kernel_size": POOL,
    "pooling_type": "avg",
    "encoder_causal_convolution": True,
    "encoder_causal_attention": False,
    "quantize_causal_encoder": False,
}
ONLY = {
    "pooling_kernel_size": POOL,
    "pooling_type": "avg",
    "encoder_causal_convolution": True,
    "encoder_causal_attention": False,
    "quantize_causal_encoder": False,
}


class Glm4Voice(Wrapper):
    """voice_mel, frames_lengths -> voice; weights have the names of WhisperVQEncoder.

    Args:
        config: the tokenizer's config.json, as `known` gives it.
    """

    role = "encoder"
    pieces = "frames"

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        self.dialect = dialect.current()
        self.opset = self.dialect.ENCODER_OPSET
        mels, frames, width = (
            config[key] for key in ("num_mel_bins", "max_source_positions", "d_model")
        )
        self.pooled = config["pooling_position"]  # layers before it
        self.block = config["quantize_causal_block_size"] or 0
        self.conv1 = nn.Conv1d(mels, width, kernel_size=3)
        self.conv2 = nn.Conv1d(width, width, kernel_size=3, stride=2)
        self.embed_positions = nn.Embedding(frames, width)
        self.layers = nn.ModuleList(
            Layer(config, "GLM-4-voice") for _ in range(config["quantize_position"])
        )
        self.inputs = {
            "voice_mel": Port("float32", ("batch", mels, "frames")),
            "frames_lengths": Port("int64", ("batch",), counts="frames"),
        }
        self.outputs = {"voice": Port("float32", ("batch", "rows", width))}
        self.spans = {"frames": Span(2 * POOL, min(USUAL, 2 * frames), 2 * frames)}

    def forward(self, voice_mel: Tensor, frames_lengths: Tensor) -> Tensor:
        """[batch, mels, frames], [batch] -> [batch, ceil(frames / 8), width].

        What is behind a clip's rows is of padding.
        """
        x = F.gelu(self.conv1(F.pad(voice_mel, (2, 0))))
        x = F.gelu(self.conv2(F.pad(x, (2, 0)))).transpose(1, 2)
        count = (voice_mel.shape[2] + 1) // 2
        x = x + self.embed_positions.weight[:count]
        real = (frames_lengths + 1) // 2
        bias, padded = self._seen(count, self.block), self._padded(count, real)
        for i, layer in enumerate(self.layers):
            x = layer(x, padded, bias)
            if i + 1 == self.pooled:
                rows = (count + (POOL - 1)) // POOL
                x = F.pad(x, (0, 0, 0, POOL - 1))[:, : rows * POOL]
                x = x.reshape(x.shape[0], rows, POOL, x.shape[2]).mean(2)
                bias = self._seen(rows, self.block // POOL)
                padded = self._padded(rows, (real + (POOL - 1)) // POOL)
        return x

    def _seen(self, count: int, block: int) -> Tensor | None:
        """What keeps later blocks from each frame [1, 1, count, count]; with no blocks nothing."""
        if not block:
            return None
        of = torch.arange(count) // block
        return (of[None, :] > of[:, None]).float()[None, None] * NEVER

    def _padded(self, count: int, real: Tensor) -> Tensor:
        return self.dialect.encoder_padding((torch.arange(count) < real[:, None]).float())


def known(config: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The encoder's settings, those that the config leaves out as the published one has them.

    Raises:
        BadCheckpoint: a value of a wrong type, out of its limits or not done here, all named;
            `where` names the file.
    """
    settings = whisper.known(config, where) | DEFAULTS
    settings |= {name: config[name] for name in DEFAULTS if name in config}
    wrong = [
        f"{name} {limits.shown(settings[name])}; known is {only}"
        for name, only in ONLY.items()
        if settings[name] != only
    ]
    most = limits.LAYERS
    if type(last := settings["quantize_position"]) is not int or not 0 < last <= most:
        wrong.append(f"quantize_position {limits.shown(last)}; it must be 1 to {most}")
    elif type(at := settings["pooling_position"]) is not int or not 0 < at <= last:
        wrong.append(f"pooling_position {limits.shown(at)}; it must be 1 to {last}")
    codes = settings["quantize_vocab_size"]
    if type(codes) is not int or not 1 < codes <= 2**20:
        wrong.append(f"quantize_vocab_size {limits.shown(codes)}; it must be 2 to {2**20}")
    block = settings["quantize_causal_block_size"]
    if block is not None and (type(block) is not int or not POOL <= block <= 2**20):
        wrong.append(f"quantize_causal_block_size {limits.shown(block)}; it must be {POOL} or more")
    if wrong:
        raise BadCheckpoint(f"{where} says {'; '.join(wrong)}")
    return settings


def build(config: Mapping[str, Any]) -> Glm4Voice:
    """The encoder that `known` settings describe, its weights still to be filled in."""
    return Glm4Voice(config).eval().requires_grad_(False)


def tiny() -> Glm4Voice:
    """The smallest that computes something, with random weights, for tests."""
    sizes: dict[str, Any] = dict(d_model=32, encoder_attention_heads=2, encoder_ffn_dim=48)
    sizes |= dict(num_mel_bins=20, max_source_positions=60, quantize_position=3)
    sizes |= dict(pooling_position=2, quantize_causal_block_size=18)
    return randomised(build(known(sizes, "tiny")))
