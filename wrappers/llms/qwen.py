"""QWen (2023): Llama with one biased product for queries, keys and values.

Past the length that it was trained on, queries are scaled by their position (log-n attention) and
rotary frequencies by the length of the prompt (dynamic NTK). transformers has no such model: the
config is read here, under the names that the authors' own code gives it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor, nn

from alm.errors import BadCheckpoint
from wrappers.checkpoint import limits
from wrappers.layers import decoder_layers
from wrappers.layers.spec import Spec

MOST_DOUBLINGS = 16  # of the trained length; further, frequencies stay what they are


@dataclass(frozen=True)
class Config:
    """The settings that change an answer; what a config leaves out is as the authors' code has it.

    Attributes:
        intermediate_size: of both halves of an MLP together.
        seq_length: what log-n attention and dynamic NTK take for the trained length.
        no_bias: of all linear layers but `c_attn`, which always has one.
    """

    seq_length: int
    vocab_size: int = 151936
    hidden_size: int = 4096
    num_hidden_layers: int = 32
    num_attention_heads: int = 32
    intermediate_size: int = 22016
    max_position_embeddings: int = 8192
    kv_channels: int = 128
    layer_norm_epsilon: float = 1e-6
    rotary_pct: float = 1.0
    rotary_emb_base: float = 10000
    use_dynamic_ntk: bool = True
    use_logn_attn: bool = True
    no_bias: bool = True
    tie_word_embeddings: bool = False
    use_cache_quantization: bool = False
    model_type: str = "qwen"

    @property
    def num_key_value_heads(self) -> int:
        """Every head has keys of its own."""
        return self.num_attention_heads

    @property
    def rope_parameters(self) -> dict[str, Any]:
        """As transformers would say it of prompts no longer than the trained length."""
        return {"rope_type": "default", "rope_theta": self.rotary_emb_base}

    @property
    def rms_norm_eps(self) -> float:
        """As other configs call it."""
        return self.layer_norm_epsilon


def read(plain: Mapping[str, Any]) -> Config:
    """The config in a config.json.

    Raises:
        BadCheckpoint: all that it lacks, that is of another type or that is not done here.
    """
    known = {f.name: plain[f.name] for f in fields(Config) if plain.get(f.name) is not None}
    wrong = [] if "seq_length" in known else ["no seq_length, the length that it was trained on"]
    try:
        limits.check(known, "the config")
    except BadCheckpoint as error:
        wrong.append(str(error).removeprefix("the config says "))
    if not wrong:
        wrong += _faults(Config(**known))
    if sum(plain.get(name) is True for name in ("bf16", "fp16", "fp32")) > 1:
        wrong.append("more than one of bf16, fp16 and fp32")
    if wrong:
        raise BadCheckpoint(f"the config says {'; '.join(wrong)}")
    return Config(**known)


def _faults(config: Config) -> list[str]:
    """What keeps a config of sound values from being a model, in words."""
    heads, wide = config.num_attention_heads, config.kv_channels
    wrong = []
    if heads * wide != config.hidden_size:
        wrong.append(
            f"num_attention_heads {heads} of kv_channels {wide}, which are not the hidden_size "
            f"{config.hidden_size}"
        )
    if config.rotary_pct != 1:
        wrong.append(f"rotary_pct {config.rotary_pct:g}; known is 1, heads that are turned whole")
    if config.use_dynamic_ntk and wide < 4:
        wrong.append(f"use_dynamic_ntk true, which has no meaning for heads of {wide}")
    if config.use_logn_attn and config.seq_length < 2:
        wrong.append(f"use_logn_attn true, which has no meaning for seq_length {config.seq_length}")
    if config.intermediate_size % 2:
        wrong.append(f"intermediate_size {config.intermediate_size}, which has no half")
    if config.use_cache_quantization:
        wrong.append(
            "use_cache_quantization true; take it out and choose the cache's type on export"
        )
    return wrong


class Rope(nn.Module):
    """Cosines and sines; of queries others, past the trained length, as log-n attention wants them.

    Dynamic NTK: a prompt of more than `trained` positions, at most 2^n times as many, is turned by

        base' = base * (2^(n + 1) - 1) ** (dim / (dim - 2))

    and so is its answer, however long that becomes (QWen's own code, `get_ntk_alpha`).
    """

    of = ""  # all layers
    inv_freq: Tensor
    ends: Tensor

    def __init__(self, config: Config, head_dim: int) -> None:
        super().__init__()
        self.trained, self.logn = config.seq_length, config.use_logn_attn
        self.by_prompt = config.use_dynamic_ntk
        doublings = MOST_DOUBLINGS if self.by_prompt else 0
        stretches = [2 ** (n + 1) - 1 for n in range(doublings + 1)]
        powers = torch.arange(0, head_dim, 2, dtype=torch.float32, device="cpu") / head_dim
        exponent = head_dim / (head_dim - 2) if self.by_prompt else 1.0
        bases = [config.rotary_emb_base * stretch**exponent for stretch in stretches]
        rows = torch.stack([1.0 / (base**powers) for base in bases])
        ends = torch.tensor([self.trained * 2**n for n in range(doublings)], device="cpu")
        self.register_buffer("inv_freq", rows, persistent=False)
        self.register_buffer("ends", ends, persistent=False)

    def forward(self, positions: Tensor, lengths: Tensor) -> tuple[Tensor, ...]:
        """Cosines and sines [batch, seq, dim/2] at positions [batch, seq] of prompts [batch]."""
        inv_freq = self.inv_freq[:1]
        if self.by_prompt:
            inv_freq = self.inv_freq[(lengths[:, None] > self.ends).sum(1)]
        angles = positions[..., None].float() * inv_freq[:, None]
        turned = angles.cos(), angles.sin()
        if not self.logn:
            return turned
        place = (positions + 1).clamp(min=self.trained).float()
        scale = (place.log() / math.log(self.trained))[..., None]
        return *turned, turned[0] * scale, turned[1] * scale

    @staticmethod
    def dimensions(config: Config) -> dict[str, int]:
        """The manifest's facts about frequencies that change with a prompt's length."""
        return {"rope_doubles_past": config.seq_length} if config.use_dynamic_ntk else {}


class Attention(decoder_layers.Attention):
    """Attention whose queries, keys and values are one matrix, as the checkpoint has it."""

    def make_products(self) -> None:
        self.c_attn = nn.Linear(self.spec.hidden, sum(self.sizes))

    def products(self, x: Tensor, rows: Tensor | None) -> tuple[Tensor, ...]:
        return self.unpacked(x, rows)

    def packed(self, x: Tensor) -> Tensor:
        return self.c_attn(x)


def spec(config: Config) -> Spec:
    """The decoder that the config describes."""
    return Spec.of(
        config,
        intermediate=config.intermediate_size // 2,
        qkv_bias=True,
        output_bias=not config.no_bias,
        mlp_bias=not config.no_bias,
        attention=Attention,
        rope=Rope,
    )


def tiny() -> Spec:
    """The smallest that computes something, for tests."""
    sizes: dict[str, Any] = dict(hidden_size=32, intermediate_size=96, vocab_size=67)
    sizes |= dict(num_hidden_layers=2, num_attention_heads=4, kv_channels=8, seq_length=12)
    return spec(Config(**sizes, max_position_embeddings=64))
