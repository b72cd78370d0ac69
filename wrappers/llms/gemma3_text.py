"""Gemma 3: Gemma 2 with normed heads, scores without a cap, and a rope for each kind of layer."""

from __future__ import annotations

from typing import Any

from transformers import Gemma3TextConfig

from alm.errors import BadCheckpoint
from wrappers.layers.spec import Spec
from wrappers.llms import qwen3

SLIDING = "sliding_attention"


def spec(config: Any) -> Spec:
    """The decoder that transformers' Gemma3TextConfig describes.

    Raises:
        BadCheckpoint: attention to what comes later, a soft cap that transformers leaves out, or
            layers with a window of no length.
    """
    _refuse(config)
    kinds = tuple(config.layer_types)
    return Spec.of(
        config,
        activation=config.hidden_activation,
        qkv_bias=config.attention_bias,
        output_bias=config.attention_bias,
        embedding_scale=config.hidden_size**0.5,
        norm_offset=1.0,
        sandwich=True,
        scale=config.query_pre_attn_scalar**-0.5,
        logit_softcap=config.final_logit_softcapping or 0.0,
        windows=tuple(config.sliding_window if kind == SLIDING else 0 for kind in kinds),
        ropes=kinds,
        attention=qwen3.Attention,
    )


def _refuse(config: Any) -> None:
    wrong: list[str] = []
    if config.use_bidirectional_attention:
        wrong.append(
            "use_bidirectional_attention true: such a Gemma 3 makes embeddings of texts and "
            "answers nothing"
        )
    if config.attn_logit_softcapping:
        wrong.append(
            f"attn_logit_softcapping {config.attn_logit_softcapping}, which transformers leaves "
            "out of a Gemma 3; set it to null if it was trained so"
        )
    if SLIDING in config.layer_types and not config.sliding_window:
        wrong.append(f"layer_types {SLIDING} and sliding_window {config.sliding_window}")
    if wrong:
        raise BadCheckpoint(f"it says {'; '.join(wrong)}")


def tiny() -> Spec:
    """The smallest that computes something, for tests."""
    sizes: dict[str, Any] = dict(hidden_size=32, intermediate_size=48, vocab_size=67)
    sizes |= dict(num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2)
    sizes |= dict(max_position_embeddings=64, head_dim=8, query_pre_attn_scalar=8, sliding_window=6)
    scaled = {"rope_type": "linear", "factor": 8.0}
    return spec(
        Gemma3TextConfig(**sizes, sliding_window_pattern=2, rope_scaling=scaled)  # pyright: ignore
    )
