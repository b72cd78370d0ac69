"""Mixtral: Mistral with experts in the place of every MLP."""

from __future__ import annotations

from typing import Any

from transformers import MixtralConfig

from wrappers.layers import experts
from wrappers.layers.spec import Mixture, Spec


def spec(config: Any) -> Spec:
    """The decoder that transformers' MixtralConfig describes.

    `router_jitter_noise` is of training alone: the original adds no noise to answers.

    Raises:
        BadCheckpoint: more experts for a token than there are.
    """
    window = config.sliding_window or 0
    mixture = Mixture(
        experts=config.num_local_experts,
        active=config.num_experts_per_tok,
        intermediate=config.intermediate_size,
        normed=True,
    )
    return Spec.of(
        config,
        activation=config.hidden_act,
        windows=(window,) * config.num_hidden_layers,
        mlp=experts.MLP,
        mixture=mixture,
    )


def tiny() -> Spec:
    """The smallest that computes something, for tests."""
    sizes: dict[str, Any] = dict(hidden_size=32, intermediate_size=48, vocab_size=67)
    sizes |= dict(num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2)
    sizes |= dict(max_position_embeddings=64, sliding_window=6)
    return spec(MixtralConfig(**sizes, num_local_experts=4, num_experts_per_tok=2))
