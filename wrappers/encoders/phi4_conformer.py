"""Phi-4-multimodal's encoder: convolutions that halve time three times, then a causal Conformer.

A clip of more than 500 rows (40 s) is heard in pieces of 500 that know nothing of each other; the
last is filled with zeros, which are attended to. A shorter one is heard at its own length. Only
the convolutions before look across, back to the frames that `Phi4Mel` lays before each piece.
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
from wrappers.layers.audio_layers import activation
from wrappers.layers.phi4_layers import MODEL, Layer

ROWS = 500  # of a piece; transformers counts so, whatever the config says
# What transformers takes for a key that config.json leaves out.
DEFAULTS: dict[str, Any] = {
    "hidden_size": 1024,
    "intermediate_size": 1536,
    "num_blocks": 24,
    "num_attention_heads": 16,
    "head_dim": None,
    "activation": "swish",
    "chunk_size": -1,
    "ext_pw_out_channel": 1024,
    "depthwise_separable_out_channel": 1024,
    "depthwise_multiplier": 1,
    "kernel_size": 3,
    "conv_activation": "swish",
    "input_size": 80,
    "conv_glu_type": "swish",
    "time_reduction": 8,
    "bias_max_distance": 1000,
    "bias_symmetric": False,
    "nemo_activation": "relu",
    "nemo_conv_channels": 1024,
}


class MeanVarianceNorm(nn.Module):
    """(x - mean) / deviation of each mel bin, as the checkpoint has measured them."""

    def __init__(self, mels: int) -> None:
        super().__init__()
        self.global_mean = nn.Parameter(torch.zeros(mels))
        self.global_invstd = nn.Parameter(torch.ones(mels))

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.global_mean) * self.global_invstd


class Subsampling(nn.Module):
    """Convolutions of stride 2 over time and mel bins, and a linear layer over what is left."""

    def __init__(self, known: Mapping[str, Any]) -> None:
        super().__init__()
        deep, bands = known["nemo_conv_channels"], known["input_size"]
        self.act = activation(known["nemo_activation"], MODEL)
        self.halvings = int(math.log2(known["time_reduction"]))
        convs: dict[str, nn.Module] = {"0": nn.Conv2d(1, deep, 3, 2, padding=1)}
        for i in range(self.halvings - 1):
            convs[str(3 * i + 2)] = nn.Conv2d(deep, deep, 3, 2, padding=1, groups=deep)
            convs[str(3 * i + 3)] = nn.Conv2d(deep, deep, 1)
        self.conv = nn.ModuleDict(convs)
        for _ in range(self.halvings):
            bands = (bands + 1) // 2
        self.out = nn.Linear(deep * bands, known["hidden_size"])

    def forward(self, x: Tensor, real: Tensor) -> tuple[Tensor, Tensor]:
        """[batch, frames, mels], [batch, frames] -> [batch, rows, width], [batch, rows].

        Where nothing is real there are zeros at every step, as a convolution's padding is.
        """
        x, real = (x * real[:, :, None]).unsqueeze(1), real.unsqueeze(1)
        # Every other one, by a convolution as well: the length of a slice is another formula, and
        # a trace would not know the two for one.
        middle = torch.tensor([[[0.0, 1.0, 0.0]]])
        for i in range(self.halvings):
            if i:
                x = self.conv[str(3 * i - 1)](x)
            x = self.act(self.conv[str(3 * i)](x))
            real = F.conv1d(real, middle, stride=2, padding=1)
            x = x * real.unsqueeze(3)
        x = self.out(x.transpose(1, 2).flatten(2))
        return x * real.transpose(1, 2), real.squeeze(1)


class RelativeBias(nn.Module):
    """A number for each head and distance from query to key, up to `most` either way."""

    def __init__(self, known: Mapping[str, Any]) -> None:
        super().__init__()
        self.most, self.symmetric = known["bias_max_distance"], known["bias_symmetric"]
        buckets = self.most if self.symmetric else 2 * self.most
        self.bias_values = nn.Embedding(buckets, known["num_attention_heads"])

    def forward(self, rows: int) -> Tensor:
        """[1, heads, rows, rows]"""
        place = torch.arange(rows)
        distance = (place[None, :] - place[:, None]).clamp(-self.most, self.most - 1)
        index = distance.abs() if self.symmetric else distance + self.most
        return self.bias_values(index).permute(2, 0, 1)[None]


class Phi4Conformer(Wrapper):
    """log_mel, frames_real, frames_lengths -> speech, audio_embeds_lengths.

    Weights have the names of transformers' Phi4MultimodalAudioModel.

    Args:
        config: the encoder's config, as `DEFAULTS` has its keys.
        rows: of a piece.

    Raises:
        BadCheckpoint: sizes that do not go into each other, an unknown activation.
    """

    role = "encoder"
    pieces = "frames"

    def __init__(self, config: Mapping[str, Any], rows: int = ROWS) -> None:
        super().__init__()
        self.dialect = dialect.current()
        self.opset = self.dialect.ENCODER_OPSET
        known = settings(config)
        mels, width = known["input_size"], known["hidden_size"]
        self.lead = known["time_reduction"]
        self.encoder_embedding = MeanVarianceNorm(mels)
        self.embed = Subsampling(known)
        self.relative_attention_bias_layer = RelativeBias(known)
        self.encoders = nn.ModuleList(Layer(known) for _ in range(known["num_blocks"]))
        self.inputs = {
            "log_mel": Port("float32", ("batch", mels, "frames")),
            "frames_real": Port("float32", ("batch", "frames")),
            "frames_lengths": Port("int64", ("batch",), counts="frames"),
        }
        self.outputs = {
            "speech": Port("float32", ("batch", "rows", width)),
            "audio_embeds_lengths": Port("int64", ("batch",)),
        }
        most = (1 + rows) * self.lead
        self.spans = {"frames": Span(self.lead + 1, most - most // 4, most)}

    def forward(
        self, log_mel: Tensor, frames_real: Tensor, frames_lengths: Tensor
    ) -> tuple[Tensor, Tensor]:
        """[batch, mels, frames], [batch, frames], [batch] -> [batch, rows, width], [batch].

        The first frames are those before the piece, and no row. Rows behind those of a clip are
        padding.
        """
        x = self.encoder_embedding(log_mel.transpose(1, 2))
        x, real = self.embed(x, frames_real)
        x, real = x[:, 1:], real[:, 1:]
        attended = (frames_lengths - 1) // self.lead
        there = torch.arange(x.shape[1]) < attended[:, None]
        padded = self.dialect.encoder_padding(there.float())
        bias = self.relative_attention_bias_layer(x.shape[1])
        for layer in self.encoders:
            x = layer(x, bias, padded)
        return x, real.sum(1).to(torch.int64)


def settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings, what the config leaves out as transformers takes it.

    Raises:
        BadCheckpoint: they contradict each other, or are of a kind that is not done; all named.
    """
    known = {**DEFAULTS, **{k: config[k] for k in DEFAULTS if config.get(k) is not None}}
    width, heads = known["hidden_size"], known["num_attention_heads"]
    wrong = [
        f"{name} {known[name]}, which must be its hidden_size {width}"
        for name in ("ext_pw_out_channel", "depthwise_separable_out_channel")
        if known[name] != width
    ]
    if known["head_dim"] is None and width % heads:
        wrong.append(f"hidden_size {width}, which its {heads} heads do not share")
    known["head_dim"] = known["head_dim"] or width // heads
    reduction = known["time_reduction"]
    if reduction < 2 or reduction & (reduction - 1):
        wrong.append(f"time_reduction {reduction}, which is no power of two")
    if known["chunk_size"] >= 0:
        wrong.append(
            f"chunk_size {known['chunk_size']}; known is -1, where every row hears every other"
        )
    if known["bias_symmetric"] and known["bias_max_distance"] < ROWS:
        wrong.append(
            f"bias_symmetric with bias_max_distance {known['bias_max_distance']}, which has no "
            f"bias for the distances in a piece of {ROWS} rows"
        )
    if wrong:
        raise BadCheckpoint(f"{MODEL}'s audio_config says {'; '.join(wrong)}")
    return known


def build(config: Mapping[str, Any]) -> Phi4Conformer:
    """The encoder that the config describes, its weights still to be filled in."""
    return Phi4Conformer(config).eval().requires_grad_(False)


def tiny() -> Phi4Conformer:
    """The smallest that computes something, with random weights, for tests."""
    sizes: dict[str, Any] = dict(hidden_size=32, intermediate_size=40, num_blocks=2)
    sizes |= dict(num_attention_heads=4, input_size=20, nemo_conv_channels=8)
    sizes |= dict(ext_pw_out_channel=32, depthwise_separable_out_channel=32, bias_max_distance=5)
    return randomised(Phi4Conformer(sizes, rows=12).eval().requires_grad_(False))
