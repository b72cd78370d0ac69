"""Rotary frequencies: every scaling that transformers knows, as one small module."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from alm.errors import BadCheckpoint


class Rope(nn.Module):
    """Cosines and sines for given positions, computed in float32 inside the graph.

    A table over the whole context would be 67 MB for 131072 positions; the frequencies are `dim/2`
    numbers. default, linear, yarn, llama3 and proportional are constants; dynamic (NTK) and
    longrope depend on how long the row is by now, as in transformers.
    """

    inv_freq: Tensor
    long_inv_freq: Tensor

    def __init__(self, config: Any, head_dim: int) -> None:
        super().__init__()
        parameters = dict(config.rope_parameters)
        self.kind: str = parameters.get("rope_type", "default")
        self.theta: float = parameters["rope_theta"]
        self.dim = int(head_dim * parameters.get("partial_rotary_factor", 1.0))
        if self.dim != head_dim:
            raise BadCheckpoint(
                f"rotary embedding of {self.dim} out of {head_dim} is not known here"
            )
        self.scaling = 1.0
        if self.kind == "default":
            powers = torch.arange(0, self.dim, 2, dtype=torch.float32, device="cpu") / self.dim
            inv_freq = 1.0 / (self.theta**powers)
        elif self.kind in ROPE_INIT_FUNCTIONS:
            with torch.device("cpu"):  # also when the module is built without weights, on meta
                inv_freq, self.scaling = ROPE_INIT_FUNCTIONS[self.kind](config)
        else:
            known = ", ".join(["default", *sorted(ROPE_INIT_FUNCTIONS)])
            raise BadCheckpoint(f"unknown rope scaling {self.kind!r}; there is: {known}")
        self.register_buffer("inv_freq", inv_freq.float(), persistent=False)
        if self.kind == "longrope":
            self.original = int(parameters["original_max_position_embeddings"])
            with torch.device("cpu"):
                long, _ = ROPE_INIT_FUNCTIONS["longrope"](config, seq_len=self.original + 1)
            self.register_buffer("long_inv_freq", long.float(), persistent=False)
        if self.kind == "dynamic":
            self.factor = float(parameters["factor"])
            original = parameters.get("original_max_position_embeddings")
            self.original = int(original or config.max_position_embeddings)

    def forward(self, positions: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """cos and sin [batch, seq, dim/2] at positions [batch, seq] of rows this long [batch]."""
        inv_freq = self.inv_freq[None, :]  # [batch or 1, dim/2]
        if self.kind == "longrope":
            longer = (lengths > self.original)[:, None]
            inv_freq = torch.where(longer, self.long_inv_freq, inv_freq)
        elif self.kind == "dynamic":
            longer = (lengths > self.original)[:, None]
            inv_freq = torch.where(longer, self._stretched(lengths), inv_freq)
        angles = positions[..., None].float() * inv_freq[:, None]
        return angles.cos() * self.scaling, angles.sin() * self.scaling

    def _stretched(self, lengths: Tensor) -> Tensor:
        """NTK-aware frequencies of rows longer than the trained context: [batch, dim/2].

        base' = base * (factor * length / trained - (factor - 1)) ** (dim / (dim - 2))
        """
        grown = lengths.clamp(min=self.original).float() * (self.factor / self.original)
        log_base = math.log(self.theta) + self.dim / (self.dim - 2) * torch.log(
            grown - (self.factor - 1)
        )
        powers = torch.arange(0, self.dim, 2, dtype=torch.float32) / self.dim
        return torch.exp(-log_base[:, None] * powers)
