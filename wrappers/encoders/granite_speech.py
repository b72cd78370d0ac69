"""Granite Speech's encoder: a conformer whose attention sees blocks of frames and nothing else.

Pairs of log-mel frames in, one feature vector for every 20 ms out. A frame attends to those of its
block, 4 s in the published models, with Shaw's relative positions; the depthwise convolutions reach
over a block's ends. Behind the middle layer its own guess at the characters is added to the frames.
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
from wrappers.checkpoint.weights.tensors import Weights
from wrappers.layers.attention import scale, split

# What transformers takes for a key that config.json leaves out.
DEFAULTS: dict[str, Any] = {
    "input_dim": 160,
    "num_layers": 10,
    "hidden_dim": 1024,
    "feedforward_mult": 4,
    "num_heads": 8,
    "dim_head": None,
    "output_dim": 42,
    "context_size": 200,
    "max_pos_emb": 512,
    "conv_kernel_size": 15,
    "conv_expansion_factor": 2,
    "cat_hidden_layers": None,
}
POINTWISE = (".up_conv.weight", ".down_conv.weight")
USUAL = 500  # pairs that backends tune for: 10 s


class FeedForward(nn.Module):
    """down(silu(up(norm(x))))"""

    def __init__(self, width: int, times: int) -> None:
        super().__init__()
        self.pre_norm = nn.LayerNorm(width)
        self.up_proj = nn.Linear(width, width * times)
        self.down_proj = nn.Linear(width * times, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(F.silu(self.up_proj(self.pre_norm(x))))


class Attention(nn.Module):
    """Frames of a block attend to each other, and to how far they are apart (Shaw et al. 2018)."""

    near: Tensor

    def __init__(self, width: int, heads: int, head_dim: int, block: int, reach: int) -> None:
        super().__init__()
        self.heads, self.block, self.dialect = heads, block, dialect.current()
        inner = heads * head_dim
        self.pre_norm = nn.LayerNorm(width)
        self.to_q = nn.Linear(width, inner, bias=False)
        self.to_kv = nn.Linear(width, 2 * inner, bias=False)
        self.to_out = nn.Linear(inner, width)
        self.rel_pos_emb = nn.Embedding(2 * reach + 1, head_dim)
        # Rows of the table from the farthest behind a frame to the farthest before it.
        near = torch.arange(reach + block - 1, reach - block, -1, device="cpu")
        self.register_buffer("near", near, persistent=False)

    def forward(self, x: Tensor, padded: Tensor) -> Tensor:
        """[batch, pairs, width], padding of [batch * blocks, block] keys -> as x."""
        batch, pairs, width = x.shape
        blocks = (pairs + (self.block - 1)) // self.block
        x = F.pad(self.pre_norm(x), (0, 0, 0, self.block - 1))[:, : blocks * self.block]
        x = x.reshape(-1, self.block, width)
        q, (k, v) = self.to_q(x), self.to_kv(x).chunk(2, -1)
        y = self.dialect.encoder_attend(q, k, v, self.heads, bias=self._apart(q), padded=padded)
        return self.to_out(y.reshape(batch, blocks * self.block, -1)[:, :pairs])

    def _apart(self, q: Tensor) -> Tensor:
        """What a query gives to a distance: [n, block, inner] -> [n, heads, block, block].

        s[c, k] is query c at the distance c - r, with k = r - c + block - 1. One number more in
        each row, and rows read one shorter, put it at [c, r].
        """
        n = self.block
        heads = split(q * scale(q, self.heads), self.heads).transpose(1, 2)
        s = heads @ self.rel_pos_emb(self.near).transpose(0, 1)  # [n, heads, block, 2 block - 1]
        s = F.pad(s, (0, 1)).flatten(2)[:, :, n - 1 : n - 1 + n * (2 * n - 1)]
        return s.reshape(-1, self.heads, n, 2 * n - 1)[..., :n]


class DepthConv(nn.Module):
    """A convolution of each channel with itself, centred, and one to the left where it is even."""

    def __init__(self, channels: int, kernel: int) -> None:
        super().__init__()
        self.padding = (kernel // 2, kernel // 2 - (kernel + 1) % 2)
        self.conv = nn.Conv1d(channels, channels, kernel, groups=channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.pad(x, self.padding))


class BatchNorm(nn.Module):
    """A batch norm of a trained model; its statistics are weights like others."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.running_mean = nn.Parameter(torch.zeros(channels))
        self.running_var = nn.Parameter(torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias)


class ConvModule(nn.Module):
    """Gate, depthwise convolution, batch norm, between two layers of every frame by itself.

    Those are convolutions of width 1 in the checkpoint and linear here: see `flattened`.
    """

    def __init__(self, width: int, times: int, kernel: int) -> None:
        super().__init__()
        inner = width * times
        self.norm = nn.LayerNorm(width)
        self.up_conv = nn.Linear(width, 2 * inner)
        self.depth_conv = DepthConv(inner, kernel)
        self.batch_norm = BatchNorm(inner)
        self.down_conv = nn.Linear(inner, width)

    def forward(self, x: Tensor, real: Tensor) -> Tensor:
        """[batch, pairs, width], real [batch, pairs, 1]: a convolution looks behind no clip."""
        x = F.glu(self.up_conv(self.norm(x)), dim=-1) * real
        x = F.silu(self.batch_norm(self.depth_conv(x.transpose(1, 2))))
        return self.down_conv(x.transpose(1, 2))


class Block(nn.Module):
    """A conformer layer (Gulati et al. 2020), named as in the checkpoints."""

    def __init__(self, known: Mapping[str, Any]) -> None:
        super().__init__()
        width = known["hidden_dim"]
        self.ff1 = FeedForward(width, known["feedforward_mult"])
        sizes = (known[key] for key in ("num_heads", "dim_head", "context_size", "max_pos_emb"))
        self.attn = Attention(width, *sizes)
        self.conv = ConvModule(width, known["conv_expansion_factor"], known["conv_kernel_size"])
        self.ff2 = FeedForward(width, known["feedforward_mult"])
        self.post_norm = nn.LayerNorm(width)

    def forward(self, x: Tensor, real: Tensor, padded: Tensor) -> Tensor:
        x = x + 0.5 * self.ff1(x)
        x = x + self.attn(x, padded)
        x = x + self.conv(x, real)
        x = x + 0.5 * self.ff2(x)
        return self.post_norm(x)


class GraniteSpeechEncoder(Wrapper):
    """log_mel, pairs_lengths -> speech; weights have the names of GraniteSpeechCTCEncoder.

    Args:
        config: the encoder's config, as `DEFAULTS` has its keys.
        most: pairs of frames of a clip.

    Raises:
        BadCheckpoint: sizes that do not go into each other.
    """

    role = "encoder"

    def __init__(self, config: Mapping[str, Any], most: int) -> None:
        super().__init__()
        self.dialect = dialect.current()
        self.opset = self.dialect.ENCODER_OPSET
        known = _known(config)
        width, guesses = known["hidden_dim"], known["output_dim"]
        self.block, self.kept = known["context_size"], set(known["cat_hidden_layers"] or ())
        self.middle = known["num_layers"] // 2
        self.input_linear = nn.Linear(known["input_dim"], width)
        self.layers = nn.ModuleList(Block(known) for _ in range(known["num_layers"]))
        self.out = nn.Linear(width, guesses)
        self.out_mid = nn.Linear(guesses, width)
        self.inputs = {
            "log_mel": Port("float32", ("batch", "pairs", known["input_dim"])),
            "pairs_lengths": Port("int64", ("batch",), counts="pairs"),
        }
        wide = width * (1 + len(self.kept))
        self.outputs = {"speech": Port("float32", ("batch", "pairs", wide))}
        self.spans = {"pairs": Span(1, min(USUAL, most), most)}

    def forward(self, log_mel: Tensor, pairs_lengths: Tensor) -> Tensor:
        """[batch, pairs, input_dim], [batch] -> [batch, pairs, width, those of layers kept first].

        What is behind a row's length is of padding.
        """
        pairs, size = log_mel.shape[1], self.block
        blocks = (pairs + (size - 1)) // size
        real = (torch.arange(pairs) < pairs_lengths[:, None]).float()
        keys = F.pad(real, (0, size - 1))[:, : blocks * size].reshape(-1, size)
        padded, real = self.dialect.encoder_padding(keys), real[..., None]
        x = self.input_linear(log_mel)
        kept = [x] if 0 in self.kept else []
        for number, layer in enumerate(self.layers, start=1):
            x = layer(x, real, padded)
            if number == self.middle:  # the original adds in place: before it is kept
                x = x + self.out_mid(self.out(x).softmax(-1))
            kept += [x] if number in self.kept else []
        return torch.cat([*kept, x], -1) if kept else x


def flattened(weights: Weights) -> Weights:
    """The weights with convolutions of width 1 as matrices, which levers take for what they are."""
    flat = Weights(weights.where)
    for name, shape in weights.shapes.items():
        if name.endswith(POINTWISE) and len(shape) == 3 and shape[2] == 1:
            flat.add(name, shape[:2], lambda name=name: weights[name].squeeze(2))
        else:
            flat.add(name, shape, lambda name=name: weights[name])
    return flat


def _known(config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings, what the config leaves out as transformers takes it."""
    known = {**DEFAULTS, **{k: config[k] for k in DEFAULTS if config.get(k) is not None}}
    width, heads, block = (known[key] for key in ("hidden_dim", "num_heads", "context_size"))
    wrong = []
    if known["dim_head"] is None and width < heads:
        wrong.append(f"hidden_dim {width}, which is nothing for each of num_heads {heads}")
    if block > known["max_pos_emb"]:
        wrong.append(f"context_size {block}, more than the {known['max_pos_emb']} of max_pos_emb")
    layers = known["cat_hidden_layers"] or []
    if any(type(i) is not int or not 0 <= i < known["num_layers"] for i in layers):
        wrong.append(f"cat_hidden_layers {str(layers)[:80]} of {known['num_layers']} layers")
    elif len(set(layers)) < len(layers):
        wrong.append(f"cat_hidden_layers {str(layers)[:80]}, one of them twice")
    if wrong:
        raise BadCheckpoint(f"Granite Speech's encoder_config says {'; '.join(wrong)}")
    known["dim_head"] = known["dim_head"] or width // heads
    return known


def build(config: Mapping[str, Any], most: int) -> GraniteSpeechEncoder:
    """The encoder that the config describes, its weights still to be filled in."""
    return GraniteSpeechEncoder(config, most).eval().requires_grad_(False)


def tiny() -> GraniteSpeechEncoder:
    """The smallest that computes something, with random weights, for tests."""
    sizes: dict[str, Any] = dict(hidden_dim=24, num_heads=3, dim_head=10, num_layers=2)
    sizes |= dict(input_dim=40, output_dim=11, context_size=20, max_pos_emb=24)
    part = randomised(build(sizes, 500))
    for layer in part.layers:
        layer.conv.batch_norm.running_var.abs_().add_(0.5)  # pyright: ignore
    return part
