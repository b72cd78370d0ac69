"""Voxtral Realtime's encoder: it hears piece by piece, and nothing of what comes later.

Convolutions that look back, then layers that see back over a window. What they need of the past is
carried from piece to piece, of the same size always, so a stream has no length.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from alm.errors import BadCheckpoint
from alm.ports import CACHE_IN, CACHE_OUT, Port, Span
from wrappers import Wrapper, dialect, randomised
from wrappers.layers import attention
from wrappers.layers.audio_layers import activation
from wrappers.layers.decoder_layers import Norm
from wrappers.layers.rope import GROWING, SWITCHING, Rope

# What transformers takes for a key that config.json leaves out.
DEFAULTS: dict[str, Any] = {
    "num_mel_bins": 128,
    "hidden_size": 1280,
    "intermediate_size": 5120,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "head_dim": 64,
    "hidden_act": "silu",
    "max_position_embeddings": 1500,
    "rms_norm_eps": 1e-5,
    "rope_parameters": {"rope_theta": 10_000.0, "rope_type": "default"},
    "sliding_window": 750,
}
# Frames of a log-mel spectrogram in a piece; one row of embeddings is eight.
LEAST, USUAL, MOST = 8, 96, 8 * 64
FRAMES = "frames"  # the state that counts them
MODEL = "Voxtral Realtime"


class Attention(nn.Module):
    """Every frame attends to itself and to those up to a window before it."""

    def __init__(self, width: int, heads: int, head_dim: int) -> None:
        super().__init__()
        self.heads, self.dialect = heads, dialect.current()
        self.q_proj = nn.Linear(width, heads * head_dim)
        self.k_proj = nn.Linear(width, heads * head_dim, bias=False)
        self.v_proj = nn.Linear(width, heads * head_dim)
        self.o_proj = nn.Linear(heads * head_dim, width)

    def forward(
        self, x: Tensor, rope: tuple[Tensor, Tensor], bias: Tensor, key: Tensor, value: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """x [batch, n, width], keys and values of the past [batch, kept, heads * dim] -> the same.

        bias [batch, heads, n, kept + n]
        """
        q = self._turned(self.q_proj(x), rope)
        k = torch.cat((key.float(), self._turned(self.k_proj(x), rope)), 1)
        v = torch.cat((value.float(), self.v_proj(x)), 1)
        y = self.o_proj(self.dialect.encoder_attend(q, k, v, self.heads, bias))
        new = x.shape[1]
        return y, k[:, new:].to(key.dtype), v[:, new:].to(value.dtype)

    def _turned(self, x: Tensor, rope: tuple[Tensor, Tensor]) -> Tensor:
        heads = attention.split(x, self.heads).transpose(1, 2)
        return attention.joined(self.dialect.rotate(heads, *rope))


class MLP(nn.Module):
    """down(act(gate(x)) * up(x))"""

    def __init__(self, width: int, hidden: int, act: str) -> None:
        super().__init__()
        self.act = activation(act, MODEL)
        self.gate_proj = nn.Linear(width, hidden, bias=False)
        self.up_proj = nn.Linear(width, hidden, bias=False)
        self.down_proj = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(self.act(self.gate_proj(x)) * self.up_proj(x))


class Layer(nn.Module):
    """A pre-norm transformer layer, named as in the checkpoints."""

    def __init__(self, known: Mapping[str, Any]) -> None:
        super().__init__()
        width, eps = known["hidden_size"], known["rms_norm_eps"]
        self.self_attn = Attention(width, known["num_attention_heads"], known["head_dim"])
        self.mlp = MLP(width, known["intermediate_size"], known["hidden_act"])
        self.self_attn_layer_norm = Norm(width, eps, 0.0)
        self.final_layer_norm = Norm(width, eps, 0.0)

    def forward(self, x: Tensor, *context: Any) -> tuple[Tensor, Tensor, Tensor]:
        y, key, value = self.self_attn(self.self_attn_layer_norm(x), *context)
        x = x + y
        return x + self.mlp(self.final_layer_norm(x)), key, value


class Embedder(nn.Module):
    """Two convolutions that look back: two frames, and one; the second halves their number."""

    def __init__(self, mels: int, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv1d(mels, width, kernel_size=3)
        self.conv2 = nn.Conv1d(width, width, kernel_size=3, stride=2)

    def forward(
        self, log_mel: Tensor, before1: Tensor, before2: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """[batch, mels, frames], [batch, mels, 2], [batch, width, 1] -> rows, and both anew."""
        x1 = torch.cat((before1.float(), log_mel), 2)
        y = F.gelu(self.conv1(x1))
        x2 = torch.cat((before2.float(), y), 2)
        rows = F.gelu(self.conv2(x2)).transpose(1, 2)
        frames = log_mel.shape[2]
        return rows, x1[:, :, frames:].to(before1.dtype), x2[:, :, frames:].to(before2.dtype)


class VoxtralRealtimeEncoder(Wrapper):
    """log_mel and a state -> speech and the state; weights as in transformers' encoder.

    The state: what both convolutions look back to, how many rows were made, and of each layer the
    keys (turned already) and values of the last window - 1 rows. It begins as zeros.

    Raises:
        BadCheckpoint: a window, heads, an activation or a rope that cannot be followed.
    """

    role = "encoder"

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        self.dialect = dialect.current()
        self.opset = self.dialect.ENCODER_OPSET
        self.known = known = {**DEFAULTS, **{k: config[k] for k in DEFAULTS if k in config}}
        _check(known)
        width, head_dim = known["hidden_size"], known["head_dim"]
        self.heads, self.window = known["num_attention_heads"], known["sliding_window"]
        self.embedder = Embedder(known["num_mel_bins"], width)
        self.layers = nn.ModuleList(Layer(known) for _ in range(known["num_hidden_layers"]))
        self.norm = Norm(width, known["rms_norm_eps"], 0.0)
        self.rope = Rope(SimpleNamespace(**known), head_dim)
        self.spans = {"frames": Span(LEAST, USUAL, MOST)}
        self.keep_state_in("float32")

    def keep_state_in(self, dtype: str) -> None:
        """Set the ports, with a state of this dtype."""
        known, kept = self.known, self.window - 1
        mels, width = known["num_mel_bins"], known["hidden_size"]
        state = {
            "conv1": Port(dtype, ("batch", mels, 2)),
            "conv2": Port(dtype, ("batch", width, 1)),
            FRAMES: Port("int64", ("batch",)),
        }
        for i in range(len(self.layers)):
            for kind in ("key", "value"):
                state[f"{i}.{kind}"] = Port(dtype, ("batch", kept, self.heads * known["head_dim"]))
        self.inputs = {"log_mel": Port("float32", ("batch", mels, "frames"))}
        self.inputs |= {CACHE_IN + name: port for name, port in state.items()}
        self.outputs = {"speech": Port("float32", ("batch", "frames_by_2", width))}
        self.outputs |= {CACHE_OUT + name: port for name, port in state.items()}

    def forward(
        self, log_mel: Tensor, conv1: Tensor, conv2: Tensor, before: Tensor, *past: Tensor
    ) -> tuple[Tensor, ...]:
        """[batch, mels, frames] and the state -> [batch, frames / 2, width] and the state."""
        x, conv1, conv2 = self.embedder(log_mel, conv1, conv2)
        new = x.shape[1]
        after = before + new
        positions = before[:, None] + torch.arange(new)[None]
        bias = self._bias(positions, before)
        rope, present = self.rope(positions, after), []
        for i, layer in enumerate(self.layers):
            x, key, value = layer(x, rope, bias, past[2 * i], past[2 * i + 1])
            present += [key, value]
        return (self.norm(x), conv1, conv2, after, *present)

    def _bias(self, positions: Tensor, before: Tensor) -> Tensor:
        """What leaves keys out [batch, heads, n, kept + n]: later, too early, or none at all."""
        kept = self.window - 1
        places = torch.arange(positions.shape[1] + kept)[None] - kept
        keys = (before[:, None] + places)[:, None, None]
        distance = positions[:, None, :, None] - keys
        seen = (distance >= 0) & (distance < self.window) & (keys >= 0)
        bias = (1.0 - seen.float()) * attention.NEVER
        return bias.expand(-1, self.heads, -1, -1)


def _check(known: Mapping[str, Any]) -> None:
    """Refuse, with BadCheckpoint, what cannot be followed; all at once."""
    wrong = []
    if type(known["sliding_window"]) is not int or known["sliding_window"] < 2:
        wrong.append(f"sliding_window: {known['sliding_window']!r}, which is no window of frames")
    if known["head_dim"] % 2:
        wrong.append(f"head_dim: {known['head_dim']}, which is odd: a rope turns pairs")
    kind = (known["rope_parameters"] or {}).get("rope_type", "default")
    if kind in (GROWING, SWITCHING):
        wrong.append(
            f"rope_parameters.rope_type: {kind!r}, whose angles depend on a length, and a stream "
            "has none"
        )
    if wrong:
        raise BadCheckpoint(f"{MODEL}'s audio_config says {'; '.join(wrong)}")


def build(config: Mapping[str, Any]) -> VoxtralRealtimeEncoder:
    """The encoder that the config describes, its weights still to be filled in."""
    return VoxtralRealtimeEncoder(config).eval().requires_grad_(False)


def tiny() -> VoxtralRealtimeEncoder:
    """The smallest that computes something, with random weights, for tests."""
    sizes: dict[str, Any] = dict(hidden_size=32, intermediate_size=48, num_hidden_layers=2)
    sizes |= dict(num_attention_heads=4, head_dim=12, num_mel_bins=20, sliding_window=7)
    return randomised(build(sizes))
