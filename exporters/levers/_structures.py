"""Heads and MLP channels of a part: which rows and columns of which weights each of them is.

They are found by the names that published models give their Linears, so any encoder or decoder
built of these is known; what has other names is left alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from alm.ports import is_carried
from wrappers import Wrapper
from wrappers.checkpoint.weights.hollow import weight

HEADS, CHANNELS = "heads", "channels"
# Linears into the middle of an MLP, how many equal pieces each holds side by side, and that out.
MLPS: tuple[tuple[dict[str, int], str], ...] = (
    ({"fc1": 1}, "fc2"),
    ({"intermediate_dense": 1}, "output_dense"),
    ({"gate_proj": 1, "up_proj": 1}, "down_proj"),
    ({"gate_up_proj": 2}, "down_proj"),
    ({"up_proj": 1}, "down_proj"),
)
# Linears of queries, keys and values, each with what it holds side by side, and that out.
ATTENTIONS: tuple[tuple[dict[str, str], str], ...] = (
    ({"q_proj": "q", "k_proj": "k", "v_proj": "v"}, "out_proj"),
    ({"q_proj": "q", "k_proj": "k", "v_proj": "v"}, "o_proj"),
    ({"to_q": "q", "to_kv": "kv"}, "to_out"),
    ({"qkv_proj": "qkv"}, "o_proj"),
    ({"c_attn": "qkv"}, "o_proj"),
)


@dataclass(frozen=True)
class Piece:
    """Where the units of a site lie along an axis of a weight, one run of numbers after another."""

    name: str  # of the parameter
    axis: int
    runs: tuple[tuple[int, int], ...]  # (first number, numbers of a unit)

    def index(self, units: Tensor) -> Tensor:
        """The numbers of these units [n], in their order."""
        runs = [at + units[:, None] * size + torch.arange(size) for at, size in self.runs]
        return torch.cat([run.flatten() for run in runs])


@dataclass(frozen=True)
class Site:
    """The heads of an attention, or the channels of an MLP: units that can go one by one.

    A head of keys and values goes with all queries that share it: that is one unit.
    """

    path: str  # of the module
    kind: str
    units: int
    pieces: tuple[Piece, ...]
    out: str  # path of the Linear that all units go through
    size: int  # inputs of it that are a unit's

    def weights(self, part: nn.Module) -> Tensor:
        """The units' weights without biases, float32 [units, ...], those of one in a row."""
        rows = []
        for piece in self.pieces:
            if piece.name.endswith(".weight"):
                matrix = weight(part, piece.name).float().movedim(piece.axis, 0)
                for at, size in piece.runs:
                    rows.append(matrix[at : at + self.units * size].reshape(self.units, -1))
        return torch.cat(rows, 1)


def sites(part: Wrapper) -> list[Site]:
    """All sites of a part, in the order of its modules.

    Heads are left alone that hang together otherwise: under a norm over all of them, behind a
    state that is carried, or where each sees a share of the input of its own (WavLM).
    """
    found = (site for path, module in part.named_modules() for site in _of(part, path, module))
    return [site for site in found if site.units > 1]


def _of(part: Wrapper, path: str, module: nn.Module) -> Iterator[Site]:
    for into, out in ATTENTIONS:
        if _has(module, into, out) and _apart(part, module):
            yield _heads(path, module, into, out)
            return
    for wide, out in MLPS:
        if _has(module, wide, out):
            yield _channels(path, module, wide, out)
            return


def _has(module: nn.Module, into: Mapping[str, Any], out: str) -> bool:
    return all(isinstance(getattr(module, name, None), nn.Linear) for name in (*into, out))


def _apart(part: Wrapper, module: Any) -> bool:
    """Whether each of its heads stands by itself."""
    if hasattr(module, "gru_rel_pos_linear"):
        return False
    norm = getattr(module, "q_norm", None)
    if norm is not None and norm.weight.numel() != module.spec.head_dim:
        return False
    return part.role == "decoder" or not any(map(is_carried, part.inputs))


def counts(module: Any) -> tuple[int, int]:
    """Heads of queries, and of keys and values."""
    of = getattr(module, "spec", module)
    return of.heads, getattr(of, "kv_heads", of.heads)


def _heads(path: str, module: Any, into: Mapping[str, str], out: str) -> Site:
    heads, kv_heads = counts(module)
    back = getattr(module, out)
    dim, group = back.in_features // heads, heads // kv_heads
    sizes = {"q": group * dim, "k": dim, "v": dim}
    pieces: list[Piece] = []
    for name, holds in into.items():
        runs, at = [], 0
        for one in holds:
            runs.append((at, sizes[one]))
            at += kv_heads * sizes[one]
        pieces += _linear(path, name, getattr(module, name), tuple(runs))
    if hasattr(module, "grep_a"):  # of BEATs: a number for each head
        pieces.append(Piece(f"{path}.grep_a", 1, ((0, group),)))
    pieces.append(Piece(f"{path}.{out}.weight", 1, ((0, group * dim),)))
    return Site(path, HEADS, kv_heads, tuple(pieces), f"{path}.{out}", group * dim)


def _channels(path: str, module: Any, wide: Mapping[str, int], out: str) -> Site:
    units = getattr(module, out).in_features
    pieces: list[Piece] = []
    for name, count in wide.items():
        runs = tuple((i * units, 1) for i in range(count))
        pieces += _linear(path, name, getattr(module, name), runs)
    pieces.append(Piece(f"{path}.{out}.weight", 1, ((0, 1),)))
    return Site(path, CHANNELS, units, tuple(pieces), f"{path}.{out}", 1)


def _linear(path: str, name: str, linear: nn.Linear, runs: tuple[Any, ...]) -> Iterator[Piece]:
    yield Piece(f"{path}.{name}.weight", 0, runs)
    if linear.bias is not None:
        yield Piece(f"{path}.{name}.bias", 0, runs)
