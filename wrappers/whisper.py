"""Whisper's encoder: a log-mel spectrogram in, one feature vector for every 20 ms out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from alm.errors import BadCheckpoint
from alm.ports import Port
from wrappers import Wrapper, randomised
from wrappers._attend import attend, opset

ROLE = "encoder"

_tanh_gelu = partial(F.gelu, approximate="tanh")
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_new": _tanh_gelu,
    "gelu_fast": _tanh_gelu,
    "gelu_pytorch_tanh": _tanh_gelu,
    "quick_gelu": lambda x: x * (1.702 * x).sigmoid(),
    "relu": F.relu,
    "silu": F.silu,
    "swish": F.silu,
}
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
        dialect: the form in which attention is written into a graph.
    """

    role = ROLE

    def __init__(self, config: Mapping[str, Any], dialect: str = "decomposed") -> None:
        super().__init__()
        self.opset = opset(dialect)
        known = {**DEFAULTS, **{k: v for k, v in config.items() if v is not None}}
        mels, frames, width = (
            known[key] for key in ("num_mel_bins", "max_source_positions", "d_model")
        )
        self.conv1 = nn.Conv1d(mels, width, kernel_size=3, padding=1)
        self.conv2 = nn.Conv1d(width, width, kernel_size=3, stride=2, padding=1)
        self.embed_positions = nn.Embedding(frames, width)
        self.layers = nn.ModuleList(Layer(known, dialect) for _ in range(known["encoder_layers"]))
        self.layer_norm = nn.LayerNorm(width)
        # Positions are learned for the whole window, so nothing but the batch is dynamic.
        self.inputs = {"log_mel": Port("float32", ("batch", mels, 2 * frames))}
        self.outputs = {"speech": Port("float32", ("batch", frames, width))}
        self.spans = {}

    def forward(self, log_mel: Tensor) -> Tensor:
        """[batch, mels, 2 * frames] -> [batch, frames, width]."""
        x = F.gelu(self.conv1(log_mel))
        x = F.gelu(self.conv2(x))
        x = x.transpose(1, 2) + self.embed_positions.weight
        for layer in self.layers:
            x = layer(x)
        return self.layer_norm(x)


class Layer(nn.Module):
    """A pre-norm transformer layer."""

    def __init__(self, known: Mapping[str, Any], dialect: str) -> None:
        super().__init__()
        width, hidden = known["d_model"], known["encoder_ffn_dim"]
        self.self_attn = Attention(width, known["encoder_attention_heads"], dialect)
        self.self_attn_layer_norm = nn.LayerNorm(width)
        self.activation = _activation(known["activation_function"])
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)
        self.final_layer_norm = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.self_attn(self.self_attn_layer_norm(x))
        return x + self.fc2(self.activation(self.fc1(self.final_layer_norm(x))))


class Attention(nn.Module):
    """Every frame attends to every frame; silence is not masked."""

    def __init__(self, width: int, heads: int, dialect: str) -> None:
        super().__init__()
        if width % heads:
            raise BadCheckpoint(f"Whisper's d_model {width} is not divisible by its {heads} heads")
        self.heads, self.dialect = heads, dialect
        self.k_proj = nn.Linear(width, width, bias=False)
        self.v_proj = nn.Linear(width, width)
        self.q_proj = nn.Linear(width, width)
        self.out_proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """[batch, frames, width] -> the same."""
        q, k, v = self.q_proj(x), self.k_proj(x), self.v_proj(x)
        return self.out_proj(attend(q, k, v, self.heads, self.dialect))


def build(config: Mapping[str, Any], dialect: str = "decomposed") -> Whisper:
    """The encoder that Whisper's config.json describes, its weights still to be filled in."""
    return Whisper(config, dialect).eval().requires_grad_(False)


def _activation(name: str) -> Callable[[Tensor], Tensor]:
    if name not in ACTIVATIONS:
        raise BadCheckpoint(
            f"Whisper's activation_function {name!r} is unknown; known are {', '.join(ACTIVATIONS)}"
        )
    return ACTIVATIONS[name]


def tiny() -> Whisper:
    """The smallest that says something, with random weights, for tests."""
    sizes: dict[str, Any] = dict(
        d_model=32, encoder_layers=2, encoder_attention_heads=2, encoder_ffn_dim=48
    )
    part = build(sizes | dict(num_mel_bins=80, max_source_positions=50))
    return randomised(part)
