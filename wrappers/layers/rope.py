"""Rotary frequencies: every scaling that transformers knows, as one small module."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from alm.errors import BadCheckpoint

NEEDED: dict[str, tuple[str, ...]] = {
    "linear": ("factor",),
    "dynamic": ("factor",),
    "yarn": ("original_max_position_embeddings",),
    "llama3": (
        *("factor", "low_freq_factor", "high_freq_factor"),
        "original_max_position_embeddings",
    ),
    "longrope": ("short_factor", "long_factor", "original_max_position_embeddings"),
}
GROWING, SWITCHING = "dynamic", "longrope"  # the kinds whose frequencies depend on the length


class Rope(nn.Module):
    """Cosines and sines for given positions, computed in float32 inside the graph.

    A table over the whole context would be 67 MB for 131072 positions; the frequencies are `dim/2`
    numbers. default, linear, yarn, llama3 and proportional are constants. dynamic (NTK) and
    longrope depend on how long the row is by now: as in transformers, all positions of a call are
    turned by the frequencies of its last one, and keys that are in the cache stay as they are.
    """

    by_prompt = False  # whether the length that counts is the prompt's, also while it is answered
    inv_freq: Tensor
    long_inv_freq: Tensor

    def __init__(self, config: Any, head_dim: int, of: str = "", *, partial: bool = False) -> None:
        """The frequencies that a config gives to heads of `head_dim`.

        Args:
            config: transformers' config of the LLM.
            head_dim: numbers of a head.
            of: the kind of layer whose parameters these are; "": of all.
            partial: the LLM follows a partial_rotary_factor. transformers' others pass it by.
        """
        super().__init__()
        self.of, parameters = of, _parameters(config, of)
        more = {"layer_type": of} if of else {}
        self.kind: str = parameters.get("rope_type", "default")
        self.theta: float = parameters["rope_theta"]
        self.dim = int(head_dim * parameters.get("partial_rotary_factor", 1.0))
        pairs = (self.dim + 1) // 2  # that are turned; what is behind them in a head stays
        if not 0 < 2 * pairs <= head_dim or not (partial or self.dim == head_dim):
            raise BadCheckpoint(
                f"a rotary embedding of {self.dim} out of {head_dim} is not known here"
            )
        self.scaling = 1.0
        if self.kind == "default":
            inv_freq = 1.0 / (self.theta ** _powers(self.dim))
        else:
            inv_freq, self.scaling = _initial(self.kind, config, **more)
        self.register_buffer("inv_freq", inv_freq.float(), persistent=False)
        self.trained = trained_length(config, of)
        if self.kind == SWITCHING:
            long, _ = _initial(self.kind, config, seq_len=self.trained + 1, **more)
            self.register_buffer("long_inv_freq", long.float(), persistent=False)
        if self.kind == GROWING:
            self.factor = float(parameters["factor"])
        sizes = {len(buffer) for buffer in self.buffers() if buffer.shape != (pairs,)}
        if sizes:
            raise BadCheckpoint(
                f"rope scaling {self.kind!r} gives {sizes.pop()} frequencies, and heads of "
                f"{head_dim} have {pairs}"
            )

    def forward(self, positions: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """cos and sin [batch, seq, pairs] at positions [batch, seq] of rows this long [batch]."""
        inv_freq = self.inv_freq[None, :]  # [batch or 1, pairs]
        if self.kind in (SWITCHING, GROWING):
            longer = (lengths > self.trained)[:, None]
            other = self.long_inv_freq if self.kind == SWITCHING else self._stretched(lengths)
            inv_freq = torch.where(longer, other, inv_freq)
        angles = positions[..., None].float() * inv_freq[:, None]
        return angles.cos() * self.scaling, angles.sin() * self.scaling

    def _stretched(self, lengths: Tensor) -> Tensor:
        """NTK-aware frequencies of rows longer than the trained context: [batch, pairs].

        base' = base * (factor * length / trained - (factor - 1)) ** (dim / (dim - 2))

        in transformers' order of operations: at a position of 100,000 a last bit is an angle.
        """
        grown = self.factor * lengths.clamp(min=self.trained).float() / self.trained
        base = self.theta * (grown - (self.factor - 1)) ** (self.dim / (self.dim - 2))
        return 1.0 / (base[:, None] ** _powers(self.dim))


def context(config: Any) -> int:
    """Positions that a row may have; NTK stretches what was trained by its factor at least.

    Where kinds of layers have frequencies of their own, those that see all say it: the others see
    back over a window, and only how far apart two positions are counts there.
    """
    most = config.max_position_embeddings
    for of in kinds(config):
        parameters = _parameters(config, of)
        if parameters.get("rope_type") == GROWING:
            most = max(most, int(config.max_position_embeddings * parameters["factor"]))
    return most


def kinds(config: Any) -> tuple[str, ...]:
    """The kinds of layers that have rotary parameters of their own; ("",): all layers share one."""
    parameters = getattr(config, "rope_parameters", None) or {}
    named = set(getattr(config, "layer_types", None) or ())
    return tuple(sorted(named & set(parameters))) or ("",)


def trained_length(config: Any, of: str = "") -> int:
    """Positions up to which frequencies are those of training; 0 where they never change.

    For dynamic that is max_position_embeddings, as in transformers, which reads no
    original_max_position_embeddings there.
    """
    parameters = _parameters(config, of)
    kind = parameters.get("rope_type")
    if kind == GROWING:
        return int(config.max_position_embeddings)
    return int(parameters["original_max_position_embeddings"]) if kind == SWITCHING else 0


def dimensions(config: Any) -> dict[str, int]:
    """The manifest's facts about frequencies that change with a row's length.

    A conversation that kept its cache must know: the whole of it, given anew, has keys of other
    frequencies than those that were cached when it was shorter.

    Raises:
        BadCheckpoint: two kinds of layers switch at different lengths.
    """
    names = {GROWING: "rope_grows_past", SWITCHING: "rope_switches_past"}
    found: dict[str, int] = {}
    for of in kinds(config):
        kind, length = _parameters(config, of).get("rope_type"), trained_length(config, of)
        if kind not in names:
            continue
        if found.setdefault(names[kind], length) != length:
            raise BadCheckpoint(
                f"rope scaling {kind!r} has original_max_position_embeddings "
                f"{found[names[kind]]} in some layers and {length} in others; one is known here"
            )
    return found


def _powers(dim: int) -> Tensor:
    return torch.arange(0, dim, 2, dtype=torch.float32, device="cpu") / dim


def _initial(kind: str, config: Any, **more: Any) -> tuple[Tensor, float]:
    try:
        with torch.device("cpu"):  # also when the module is built without weights, on meta
            return ROPE_INIT_FUNCTIONS[kind](config, **more)
    except (ArithmeticError, LookupError, RuntimeError, TypeError, ValueError) as error:
        reason = f"{type(error).__name__} {error}"[:200]
        raise BadCheckpoint(f"rope scaling {kind!r} cannot be computed: {reason}") from error


def _parameters(config: Any, of: str) -> dict[str, Any]:
    """The rotary parameters of a kind of layer, looked at.

    Raises:
        BadCheckpoint: a kind that is not known, or one that lacks what it needs.
    """
    parameters = dict(getattr(config, "rope_parameters", None) or {})
    if of:
        parameters = dict(parameters.get(of) or {})
    kind = parameters.get("rope_type", "default")
    if kind != "default" and kind not in ROPE_INIT_FUNCTIONS:
        known = ", ".join(["default", *sorted(ROPE_INIT_FUNCTIONS)])
        raise BadCheckpoint(f"unknown rope scaling {str(kind)[:80]!r}; there is: {known}")
    needed = ("rope_theta", *NEEDED.get(kind, ()))
    if missing := [name for name in needed if parameters.get(name) is None]:
        raise BadCheckpoint(f"rope scaling {kind!r} lacks {', '.join(missing)}")
    head_dim = getattr(config, "head_dim", None)
    head_dim = head_dim or config.hidden_size // config.num_attention_heads
    if kind == GROWING and head_dim < 4:
        raise BadCheckpoint(f"rope scaling {kind!r} has no meaning for heads of {head_dim}")
    return parameters
