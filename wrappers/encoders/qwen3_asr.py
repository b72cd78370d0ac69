"""Qwen3-ASR's encoder: seconds of a log-mel spectrogram through convolutions, then windows of them.

Every second (a chunk of `2 * n_window` frames) goes through three convolutions of its own and
becomes 13 rows, whose positions begin anew in each. Rows attend to those of the same window of
`n_window_infer` frames, 8 s in the published models, and to no others. So nothing crosses a window:
the graph computes one, and a longer clip is computed in pieces of that length.

Qwen3-Omni's is the same, but for a clip that is no whole second: what it sees behind the clip ends
with it, where Qwen3-ASR's pads every clip to whole seconds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from alm.errors import BadCheckpoint
from alm.ports import Port, Span
from wrappers import Wrapper, dialect, randomised
from wrappers.layers.audio_layers import Layer

ROWS = 13  # of a whole chunk: transformers counts so many, whatever n_window is
# What transformers takes for a key that config.json leaves out.
DEFAULTS: dict[str, Any] = {
    "num_mel_bins": 128,
    "encoder_layers": 24,
    "encoder_attention_heads": 16,
    "encoder_ffn_dim": 4096,
    "d_model": 1024,
    "activation_function": "gelu",
    "n_window": 50,
    "n_window_infer": 800,
    "output_dim": 3584,
    "downsample_hidden_size": 480,
    "max_position_embeddings": ROWS,
}


class Qwen3AsrEncoder(Wrapper):
    """log_mel, frames_lengths (, short) -> speech; weights are named as Qwen3ASREncoder's.

    Args:
        config: the encoder's config, as `DEFAULTS` has its keys.
        model: whose it is, for messages.
        ending: a clip of less than a chunk is no longer than it is: each convolution sees its own
            zeros behind the clip, and not what the one before makes of silence. The input `short`
            says which clips these are; the end of a longer one looks the same here.

    Raises:
        BadCheckpoint: sizes that do not go into each other.
    """

    role = "encoder"
    positions: Tensor

    def __init__(
        self, config: Mapping[str, Any], model: str = "Qwen3-ASR", *, ending: bool = False
    ) -> None:
        super().__init__()
        self.dialect = dialect.current()
        self.opset = self.dialect.ENCODER_OPSET
        known = {**DEFAULTS, **{k: config[k] for k in DEFAULTS if config.get(k) is not None}}
        _check(known, model)
        mels, width, deep = (
            known[key] for key in ("num_mel_bins", "d_model", "downsample_hidden_size")
        )
        self.chunk = 2 * known["n_window"]
        self.conv2d1 = nn.Conv2d(1, deep, 3, 2, padding=1)
        self.conv2d2 = nn.Conv2d(deep, deep, 3, 2, padding=1)
        self.conv2d3 = nn.Conv2d(deep, deep, 3, 2, padding=1)
        self.conv_out = nn.Linear(deep * _halved(mels), width, bias=False)
        self.register_buffer("positions", sinusoids(ROWS, width), persistent=False)
        self.layers = nn.ModuleList(
            Layer(known, model, key_bias=True) for _ in range(known["encoder_layers"])
        )
        self.ln_post = nn.LayerNorm(width)
        window = known["n_window_infer"] // self.chunk * self.chunk
        self.pieces = "frames"
        self.inputs = {
            "log_mel": Port("float32", ("batch", mels, "frames")),
            "frames_lengths": Port("int64", ("batch",), counts="frames"),
        }
        if ending:
            self.inputs["short"] = Port("int64", ("batch",), below=2)
        self.outputs = {
            "speech": Port("float32", ("batch", "rows", width)),
            "audio_embeds_lengths": Port("int64", ("batch",)),
        }
        # What is compared has a last chunk that is not whole, where a window has several.
        usual = window if window == self.chunk else window - self.chunk // 3
        self.spans = {"frames": Span(1, usual, window)}

    def forward(
        self, log_mel: Tensor, frames_lengths: Tensor, short: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """[batch, mels, frames], [batch] (, [batch]) -> [batch, rows, width], [batch].

        Frames behind a clip's length must be zeros; what is behind its rows is of padding.
        """
        batch, mels, frames = log_mel.shape
        chunks = (frames + (self.chunk - 1)) // self.chunk
        x = F.pad(log_mel, (0, self.chunk - 1))[:, :, : chunks * self.chunk]
        x = x.reshape(batch, mels, chunks, self.chunk).transpose(1, 2)
        x = x.reshape(batch * chunks, 1, mels, self.chunk)
        ends = None if short is None else self._ends(frames_lengths, short, chunks)
        for conv in (self.conv2d1, self.conv2d2, self.conv2d3):
            x = F.gelu(conv(x))
            if ends is not None and conv is not self.conv2d3:
                ends = (ends + 1) // 2
                x = x * (torch.arange(x.shape[3]) < ends).to(x.dtype)
        _, deep, bands, rows = x.shape
        x = self.conv_out(x.permute(0, 3, 1, 2).reshape(-1, rows, deep * bands)) + self.positions
        x = x.reshape(batch, chunks * rows, x.shape[2])
        counts = rows_of(frames_lengths, self.chunk)
        real = torch.arange(chunks * rows) < counts[:, None]
        padded = self.dialect.encoder_padding(real.float())
        for layer in self.layers:
            x = layer(x, padded)
        return self.ln_post(x), counts

    def _ends(self, frames_lengths: Tensor, short: Tensor, chunks: Any) -> Tensor:
        """Frames of each chunk [batch * chunks, 1, 1, 1] behind which convolutions see zeros."""
        ends = torch.where(short > 0, frames_lengths.clamp(max=self.chunk), self.chunk)
        return ends[:, None].expand(-1, chunks).reshape(-1, 1, 1, 1)


def rows_of(frames: Any, chunk: int) -> Any:
    """Rows that so many frames become: 13 a chunk, and what is left of the last, halved thrice."""
    whole = frames // chunk
    return ROWS * whole + _halved(frames - whole * chunk)


def _halved(size: Any) -> Any:
    """What three convolutions of stride 2, width 3 and padding 1 make of a length; 0 of 0."""
    for _ in range(3):
        size = (size + 1) // 2
    return size


def sinusoids(rows: int, width: int) -> Tensor:
    """Whisper's positions [rows, width]: sines, then cosines, of wavelengths up to 10,000."""
    steps = math.log(10_000) / (width // 2 - 1)
    place, step = (torch.arange(n, device="cpu").float() for n in (rows, width // 2))
    turns = torch.outer(place, torch.exp(-steps * step))
    return torch.cat([turns.sin(), turns.cos()], dim=1)


def build(
    config: Mapping[str, Any], model: str = "Qwen3-ASR", *, ending: bool = False
) -> Qwen3AsrEncoder:
    """The encoder that the config describes, its weights still to be filled in."""
    return Qwen3AsrEncoder(config, model, ending=ending).eval().requires_grad_(False)


def _check(known: Mapping[str, Any], model: str) -> None:
    chunk, window = 2 * known["n_window"], known["n_window_infer"]
    wrong = []
    if _halved(chunk) != ROWS or known["max_position_embeddings"] < ROWS:
        wrong.append(
            f"n_window {known['n_window']} with {known['max_position_embeddings']} positions, and "
            f"transformers counts {ROWS} rows for a chunk of 2 * n_window frames"
        )
    if window < chunk or window % chunk:
        wrong.append(f"n_window_infer {window}, which is no multiple of {chunk}")
    if known["d_model"] % 2 or known["d_model"] < 4:
        wrong.append(f"d_model {known['d_model']}, which has no sines and cosines")
    if wrong:
        raise BadCheckpoint(f"{model}'s audio_config says {'; '.join(wrong)}")


def tiny() -> Qwen3AsrEncoder:
    """The smallest that computes something, with random weights, for tests."""
    sizes: dict[str, Any] = dict(
        d_model=32, encoder_layers=2, encoder_attention_heads=2, encoder_ffn_dim=48
    )
    sizes |= dict(num_mel_bins=20, downsample_hidden_size=8, n_window_infer=200)
    return randomised(build(sizes))
