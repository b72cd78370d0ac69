"""Qwen2 MoE and Qwen1.5 MoE: Qwen2 with experts, and one more for every token behind a gate."""

from __future__ import annotations

from typing import Any

from transformers import Qwen2MoeConfig

from alm.errors import BadCheckpoint
from wrappers.checkpoint import limits
from wrappers.layers import experts
from wrappers.layers.spec import Mixture, Spec


def spec(config: Any) -> Spec:
    """The decoder that transformers' Qwen2MoeConfig describes.

    Raises:
        BadCheckpoint: more experts for a token than there are, or layers that are not there.
    """
    window = config.sliding_window or 0
    return Spec.of(
        config,
        activation=config.hidden_act,
        qkv_bias=config.qkv_bias,
        windows=tuple(window if of == "sliding_attention" else 0 for of in config.layer_types),
        **experts_of(config, shared=config.shared_expert_intermediate_size),
    )


def experts_of(config: Any, shared: int) -> dict[str, Any]:
    """The fields of a Spec that say which layers have experts, and what these are.

    A layer has them if it is not in `mlp_only_layers` and its number, counted from one, is a
    multiple of `decoder_sparse_step`.

    Raises:
        BadCheckpoint: `mlp_only_layers` name what is no layer; a size out of its limits.
    """
    limits.check(vars(config), "the LLM's config")  # before a step of 0 divides
    layers, step = range(config.num_hidden_layers), config.decoder_sparse_step
    plain = config.mlp_only_layers
    if odd := [i for i in plain if type(i) is not int or i not in layers]:
        raise BadCheckpoint(f"mlp_only_layers name {odd[0]!r}, and layers are 0 to {layers[-1]}")
    if not config.num_experts:  # transformers makes a plain MLP of every layer then
        return {}
    mixture = Mixture(
        experts=config.num_experts,
        active=config.num_experts_per_tok,
        intermediate=config.moe_intermediate_size,
        normed=config.norm_topk_prob,
        shared=shared,
    )
    sparse = [i not in plain and (i + 1) % step == 0 for i in layers]
    kinds = tuple({"mlp": experts.MLP if has else None} for has in sparse)
    return dict(mixture=mixture if any(sparse) else None, uneven=kinds)


def tiny() -> Spec:
    """The smallest that computes something, for tests."""
    sizes: dict[str, Any] = dict(hidden_size=32, intermediate_size=48, vocab_size=67)
    sizes |= dict(num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2)
    sizes |= dict(max_position_embeddings=64, moe_intermediate_size=32)
    sizes |= dict(shared_expert_intermediate_size=40, mlp_only_layers=[0])
    return spec(Qwen2MoeConfig(**sizes, num_experts=5, num_experts_per_tok=2))
