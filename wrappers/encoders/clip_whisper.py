"""Whisper's encoder over a clip's own length, as Ultravox has it: no silence up to a window.

Frames attend to those of the clip alone. What is given is at most a window; a longer clip is
computed in windows, and nothing crosses from one to the next.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from alm.errors import BadCheckpoint
from alm.ports import Port, Span
from wrappers import randomised
from wrappers.encoders.whisper import USUAL, Whisper
from wrappers.layers.attention import NEVER


class ClipWhisper(Whisper):
    """log_mel, frames_lengths, frames_kept -> speech; weights have WhisperEncoder's names.

    Args:
        config: Whisper's config.json. `scale_embedding` concerns the decoder alone.
        stack: frames that the bridge puts side by side: zeros fill the last row of a window.
        block: no frame attends to a later block of so many frames; 0: to all of its window.

    Raises:
        BadCheckpoint: blocks that do not share the window, as the original counts it.
    """

    def __init__(self, config: Mapping[str, Any], *, stack: int, block: int = 0) -> None:
        super().__init__(config)
        self.stack, self.block = stack, block
        mels, width = self.conv1.in_channels, self.conv2.out_channels
        most = 2 * self.frames
        if block < 0 or block and most % block:
            raise BadCheckpoint(f"blocks of {block} frames do not share a window of {most}")
        self.pieces = "frames"
        self.inputs = {
            "log_mel": Port("float32", ("batch", mels, "frames")),
            "frames_lengths": Port("int64", ("batch",), counts="frames"),
            "frames_kept": Port("int64", ("batch",), counts="frames"),
        }
        self.outputs = {"speech": Port("float32", ("batch", "speech_frames", width))}
        self.spans = {"frames": Span(2, min(USUAL, most), most)}

    def forward(
        self, log_mel: Tensor, lengths: Tensor | None = None, kept: Tensor | None = None
    ) -> Tensor:
        """[batch, mels, frames], [batch], [batch] -> [batch, rows * stack, width].

        Frames behind a clip's length must be zeros. The convolutions take the first `kept` for
        sound, and what is behind for their own padding; of these rows come zeros. That is one frame
        after an odd length: the second convolution sees what the first makes of it, or nothing.
        """
        assert lengths is not None and kept is not None
        at = torch.arange(log_mel.shape[2])
        inside = (at < kept[:, None]).to(log_mel.dtype)
        x = F.gelu(self.conv1(log_mel)) * inside[:, None]
        x = F.gelu(self.conv2(x)).transpose(1, 2)
        count = x.shape[1]
        x = x + self.embed_positions.weight[:count]
        place = torch.arange(count)
        real = (place < halved(lengths)[:, None]).float()
        padded, bias = self.dialect.encoder_padding(real), self._later(place)
        for layer in self.layers:
            x = layer(x, padded, bias)
        x = self.layer_norm(x) * (place < halved(kept)[:, None]).to(x.dtype)[..., None]
        rows = (count + (self.stack - 1)) // self.stack
        return F.pad(x, (0, 0, 0, self.stack - 1))[:, : rows * self.stack]

    def _later(self, place: Tensor) -> Tensor | None:
        """What keeps frames [n] from those of later blocks: [1, 1, n, n]; None where nothing is."""
        if not self.block:
            return None
        block = place // self.block
        return ((block > block[:, None]).float() * NEVER)[None, None]


def halved(frames: Tensor) -> Tensor:
    """Frames of the spectrogram -> those of the encoder that see one of them."""
    return (frames + 1) // 2


def build(config: Mapping[str, Any], *, stack: int, block: int = 0) -> ClipWhisper:
    """The encoder that Whisper's config.json describes, its weights still to be filled in."""
    return ClipWhisper(config, stack=stack, block=block).eval().requires_grad_(False)


def tiny() -> ClipWhisper:
    """The smallest that computes something, with random weights, for tests."""
    sizes: dict[str, Any] = dict(
        d_model=32, encoder_layers=2, encoder_attention_heads=2, encoder_ffn_dim=48
    )
    return randomised(build(sizes | dict(num_mel_bins=20, max_source_positions=50), stack=3))
