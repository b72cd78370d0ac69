"""GLM-ASR's encoder: a Whisper whose heads are turned in part, instead of learned positions.

A window of a log-mel spectrogram in, one feature vector for every 20 ms out. Silence behind a clip
is attended to like all else.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from alm.errors import BadCheckpoint
from alm.ports import Port
from wrappers import Wrapper, dialect, randomised
from wrappers.layers.attention import split
from wrappers.layers.audio_layers import activation

# What transformers takes for a key that config.json leaves out; its rope turns half of a head.
DEFAULTS: dict[str, Any] = {
    "num_mel_bins": 128,
    "hidden_size": 1280,
    "intermediate_size": 5120,
    "num_hidden_layers": 32,
    "num_attention_heads": 20,
    "num_key_value_heads": None,
    "head_dim": None,
    "hidden_act": "gelu",
    "rope_parameters": {"rope_theta": 10_000.0, "partial_rotary_factor": 0.5},
}


class Attention(nn.Module):
    """Every frame attends to every frame; the first `turned` numbers of a head are rotated."""

    def __init__(self, width: int, heads: int, kv_heads: int, head_dim: int) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.dialect = heads, kv_heads, dialect.current()
        self.q_proj = nn.Linear(width, heads * head_dim)
        self.k_proj = nn.Linear(width, kv_heads * head_dim, bias=False)
        self.v_proj = nn.Linear(width, kv_heads * head_dim)
        self.o_proj = nn.Linear(heads * head_dim, width)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """[batch, frames, width], cosines and sines [frames, turned / 2] -> as x."""
        q = rotated(split(self.q_proj(x), self.heads), cos, sin)
        k = rotated(split(self.k_proj(x), self.kv_heads), cos, sin)
        v = split(self.v_proj(x), self.kv_heads)
        q, k, v = q.flatten(2), self._repeated(k), self._repeated(v)
        return self.o_proj(self.dialect.encoder_attend(q, k, v, self.heads))

    def _repeated(self, x: Tensor) -> Tensor:
        """[batch, frames, kv_heads, dim] -> [batch, frames, heads * dim], a copy for each query."""
        times = self.heads // self.kv_heads
        if times > 1:
            x = torch.stack([x] * times, dim=3)
        return x.flatten(2)


class MLP(nn.Module):
    """fc2(act(fc1(x)))"""

    def __init__(self, width: int, hidden: int, act: str) -> None:
        super().__init__()
        self.act = activation(act, "GLM-ASR")
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.act(self.fc1(x)))


class Layer(nn.Module):
    """A pre-norm transformer layer, named as in the checkpoints."""

    def __init__(self, known: Mapping[str, Any]) -> None:
        super().__init__()
        width, heads = known["hidden_size"], known["num_attention_heads"]
        self.self_attn = Attention(width, heads, known["num_key_value_heads"], known["head_dim"])
        self.mlp = MLP(width, known["intermediate_size"], known["hidden_act"])
        self.input_layernorm = nn.LayerNorm(width)
        self.post_attention_layernorm = nn.LayerNorm(width)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x), cos, sin)
        return x + self.mlp(self.post_attention_layernorm(x))


class GlmAsrEncoder(Wrapper):
    """log_mel -> speech; weights have the names of transformers' GlmAsrEncoder.

    Args:
        config: the encoder's config, as `DEFAULTS` has its keys.
        frames: that come out, half of those that go in. transformers reads none of the config.

    Raises:
        BadCheckpoint: sizes that do not go into each other, an unknown activation or rope.
    """

    role = "encoder"
    cos: Tensor
    sin: Tensor

    def __init__(self, config: Mapping[str, Any], frames: int) -> None:
        super().__init__()
        self.dialect = dialect.current()
        self.opset = self.dialect.ENCODER_OPSET
        known = _known(config)
        mels, width = known["num_mel_bins"], known["hidden_size"]
        self.conv1 = nn.Conv1d(mels, width, kernel_size=3, padding=1)
        self.conv2 = nn.Conv1d(width, width, kernel_size=3, stride=2, padding=1)
        self.layers = nn.ModuleList(Layer(known) for _ in range(known["num_hidden_layers"]))
        self.norm = nn.LayerNorm(width)
        angles = _angles(known["rope_parameters"], known["head_dim"], frames)
        self.register_buffer("cos", angles.cos(), persistent=False)
        self.register_buffer("sin", angles.sin(), persistent=False)
        self.inputs = {"log_mel": Port("float32", ("batch", mels, 2 * frames))}
        self.outputs = {"speech": Port("float32", ("batch", frames, width))}
        self.spans = {}

    def forward(self, log_mel: Tensor) -> Tensor:
        """[batch, mels, 2 * frames] -> [batch, frames, width]."""
        x = F.gelu(self.conv1(log_mel))
        x = F.gelu(self.conv2(x)).transpose(1, 2)
        for layer in self.layers:
            x = layer(x, self.cos, self.sin)
        return self.norm(x)


def rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary embedding, halves paired, of the first numbers of heads; the rest stays.

    x [batch, frames, heads, dim], cos and sin [frames, turned / 2] -> as x.
    """
    half, cos, sin = cos.shape[1], cos[:, None], sin[:, None]
    a, b, rest = x[..., :half], x[..., half : 2 * half], x[..., 2 * half :]
    turned = [a * cos - b * sin, b * cos + a * sin]
    return torch.cat(turned + [rest] * (2 * half < x.shape[3]), -1)


def _angles(rope: Mapping[str, Any], head_dim: int, frames: int) -> Tensor:
    """Angles [frames, turned / 2] of every frame; real also where modules are built on meta."""
    dim = int(head_dim * rope.get("partial_rotary_factor", 1.0))
    wrong = [] if rope.get("rope_type", "default") == "default" else [f"{rope['rope_type']!r}"]
    if dim < 1 or dim + dim % 2 > head_dim:
        wrong.append(f"of {dim} numbers of a head of {head_dim}")
    if wrong:
        raise BadCheckpoint(
            f"GLM-ASR's audio_config has a rope {', '.join(wrong)}; known is `default` of as "
            "many as a head has"
        )
    steps = torch.arange(0, dim, 2, dtype=torch.float, device="cpu") / dim
    place = torch.arange(frames, device="cpu").float()
    return torch.outer(place, 1.0 / rope["rope_theta"] ** steps)


def _known(config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings, what the config leaves out as transformers takes it."""
    known = {**DEFAULTS, **{k: config[k] for k in DEFAULTS if config.get(k) is not None}}
    width, heads = known["hidden_size"], known["num_attention_heads"]
    known["num_key_value_heads"] = kv_heads = known["num_key_value_heads"] or heads
    if known["head_dim"] is None and width % heads or heads % kv_heads:
        raise BadCheckpoint(
            f"GLM-ASR's audio_config says hidden_size {width}, num_attention_heads {heads} and "
            f"num_key_value_heads {kv_heads}, which do not go into each other"
        )
    known["head_dim"] = known["head_dim"] or width // heads
    return known


def build(config: Mapping[str, Any], frames: int) -> GlmAsrEncoder:
    """The encoder that the config describes, its weights still to be filled in."""
    return GlmAsrEncoder(config, frames).eval().requires_grad_(False)


def tiny() -> GlmAsrEncoder:
    """The smallest that computes something, with random weights, for tests."""
    sizes: dict[str, Any] = dict(hidden_size=32, intermediate_size=48, num_hidden_layers=2)
    sizes |= dict(num_attention_heads=4, num_key_value_heads=2, num_mel_bins=20)
    return randomised(build(sizes, frames=50))
