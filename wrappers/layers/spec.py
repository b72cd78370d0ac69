"""A decoder-only LLM as its family describes it: what differs from one to the other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from torch import nn

from alm.errors import BadCheckpoint
from wrappers.checkpoint import limits
from wrappers.layers.rope import context

ACTIVATIONS = {
    "silu": nn.functional.silu,
    "gelu": nn.functional.gelu,
    "gelu_pytorch_tanh": lambda x: nn.functional.gelu(x, approximate="tanh"),
    "relu": nn.functional.relu,
}


@dataclass(frozen=True)
class Mixture:
    """The experts of a layer that has some in the place of its MLP."""

    experts: int
    active: int  # that a token picks
    intermediate: int  # width of each
    normed: bool  # what the picked ones count adds up to one
    shared: int = 0  # width of one more that every token passes, behind a gate; 0: there is none

    def faults(self) -> list[str]:
        """What keeps it from being one, in transformers' words."""
        if 0 < self.active <= self.experts:
            return []
        return [f"num_experts_per_tok {self.active} are not 1 to {self.experts}, the experts"]


@dataclass(frozen=True)
class Spec:
    """A decoder-only LLM as its family describes it."""

    vocab: int
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    eps: float
    context: int
    config: Any  # transformers' config, for the rotary parameters
    activation: str = "silu"
    qkv_bias: bool = False
    output_bias: bool = False
    mlp_bias: bool = False
    down_bias: bool = False  # where mlp_bias is not: of down_proj alone
    tied: bool = False
    embedding_scale: float = 1.0
    scaled_audio: bool = False  # transformers up to its version 4 also scaled what it was given
    input_scale: float = 1.0  # of all embeddings that come in, sound's as well
    logit_divisor: float = 1.0
    norm_offset: float = 0.0  # Gemma stores its norm weights minus one
    sandwich: bool = False  # Gemma 2 also norms what attention and MLP give
    scale: float = 0.0  # of the scores; 0: 1 / sqrt(head_dim)
    softcap: float = 0.0  # of the scores; 0: none
    logit_softcap: float = 0.0
    windows: tuple[int, ...] = field(default=())  # per layer, how far back it sees; 0: all
    partial: bool = False  # whether a partial_rotary_factor leaves the rest of a head as it is
    rotated: tuple[bool, ...] = field(default=())  # per layer, whether rope turns it; (): all
    ropes: tuple[str, ...] = field(default=())  # per layer, its key of rope_parameters; (): one
    # Classes of an LLM file's own, over those of the same names in `decoder`.
    attention: type[nn.Module] | None = None
    mlp: type[nn.Module] | None = None
    layer: type[nn.Module] | None = None
    # The name of an input, a number for each row, and the class that makes of it what every layer
    # takes as `condition`: made of the width, float32 [batch] -> [batch, 1, hidden].
    condition: tuple[str, Callable[[int], nn.Module]] | None = None
    rope: type[nn.Module] | None = None  # over `rope.Rope`
    slides: bool = False  # whether a row outgrows its cache, of which the beginning is let go
    # What layers differ in, per layer: fields of this class by name, `{"heads": 3}`; (): nothing.
    # No heads is no attention, an intermediate of 0 no MLP; the whole's are those of the widest.
    uneven: tuple[dict[str, Any], ...] = field(default=())
    mixture: Mixture | None = None  # of layers whose `mlp` is one of experts
    found: tuple[str, ...] = field(default=())  # what its weights say and its config does not
    index: int = -1  # of the layer whose sizes these are; -1: of the whole

    def at(self, index: int) -> Spec:
        """The sizes of one layer."""
        return replace(self, index=index, **(self.uneven[index] if self.uneven else {}))

    @classmethod
    def of(cls, config: Any, **more: Any) -> Spec:
        """What nearly all configs call by the same name; `more` overrides.

        Raises:
            BadCheckpoint: sizes of a wrong type, out of their limits, or that contradict each
                other; an activation that nobody knows.
        """
        limits.check(vars(config), "the LLM's config")
        head_dim = getattr(config, "head_dim", None) or (
            config.hidden_size // config.num_attention_heads
        )
        facts: dict[str, Any] = dict(
            vocab=config.vocab_size,
            hidden=config.hidden_size,
            layers=config.num_hidden_layers,
            heads=config.num_attention_heads,
            kv_heads=config.num_key_value_heads or config.num_attention_heads,
            head_dim=head_dim,
            intermediate=config.intermediate_size,
            eps=config.rms_norm_eps,
            context=context(config),
            config=config,
            tied=bool(getattr(config, "tie_word_embeddings", False)),
        )
        spec = cls(**(facts | more))
        if spec.activation not in ACTIVATIONS:
            known = ", ".join(ACTIVATIONS)
            raise BadCheckpoint(f"unknown activation {spec.activation!r}; there is: {known}")
        spec._check()
        return spec

    def _check(self) -> None:
        if self.mixture and (wrong := self.mixture.faults()):
            raise BadCheckpoint("; ".join(wrong))
        if self.heads % self.kv_heads:
            raise BadCheckpoint(
                f"num_attention_heads {self.heads} are no multiple of num_key_value_heads "
                f"{self.kv_heads}"
            )
        if self.head_dim % 2:
            raise BadCheckpoint(f"head_dim {self.head_dim} is odd: a rotary embedding turns pairs")
        if self.windows and len(self.windows) != self.layers:
            raise BadCheckpoint(
                f"layer_types name {len(self.windows)} layers and num_hidden_layers {self.layers}"
            )
        if self.ropes and len(self.ropes) != self.layers:
            raise BadCheckpoint(
                f"layer_types name {len(self.ropes)} layers and num_hidden_layers {self.layers}"
            )
        if self.rotated and len(self.rotated) != self.layers:
            raise BadCheckpoint(
                f"rope is said of {len(self.rotated)} layers and num_hidden_layers {self.layers}"
            )
