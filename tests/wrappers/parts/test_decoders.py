"""Our decoder against transformers: every LLM family, every rope scaling, both dialects."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers
from torch import Tensor

import wrappers
from alm.errors import BadCheckpoint
from wrappers.dialect import bound
from wrappers.layers.decoder import Decoder

SMALL: dict[str, Any] = dict(
    vocab_size=67,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=3,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=64,
)
ROPE = dict(rope_theta=10000.0)
PHI3: dict[str, Any] = dict(pad_token_id=0, resid_pdrop=0.1, attention_dropout=0.1)
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("Llama", {}),
    "smollm3": ("SmolLM3", dict(no_rope_layer_interval=2, pad_token_id=0)),
    "smollm3 with a window": (
        "SmolLM3",
        dict(
            no_rope_layer_interval=3,
            pad_token_id=0,
            use_sliding_window=True,
            sliding_window=6,
            layer_types=["sliding_attention", "full_attention", "sliding_attention"],
        ),
    ),
    "granite": (
        "Granite",
        dict(
            embedding_multiplier=3.0,
            residual_multiplier=0.4,
            logits_scaling=2.0,
            attention_multiplier=0.2,
        ),
    ),
    "llama without grouping, tied": (
        "Llama",
        dict(num_key_value_heads=4, tie_word_embeddings=True),
    ),
    "llama with biases": ("Llama", dict(attention_bias=True, mlp_bias=True)),
    "llama with its own head size": ("Llama", dict(head_dim=12)),
    "linear": ("Llama", dict(rope_parameters=dict(ROPE, rope_type="linear", factor=4.0))),
    "llama3": (
        "Llama",
        dict(
            rope_parameters=dict(
                ROPE,
                rope_type="llama3",
                factor=8.0,
                low_freq_factor=1.0,
                high_freq_factor=4.0,
                original_max_position_embeddings=16,
            )
        ),
    ),
    "yarn": (
        "Llama",
        dict(
            rope_parameters=dict(
                ROPE, rope_type="yarn", factor=4.0, original_max_position_embeddings=16
            )
        ),
    ),
    "dynamic": (
        "Llama",
        dict(
            max_position_embeddings=8,
            rope_parameters=dict(ROPE, rope_type="dynamic", factor=2.0),
        ),
    ),
    "longrope": (
        "Llama",
        dict(
            max_position_embeddings=64,
            rope_parameters=dict(
                ROPE,
                rope_type="longrope",
                factor=4.0,
                short_factor=[1.0, 1.1, 1.2, 1.3],
                long_factor=[1.0, 2.0, 3.0, 4.0],
                original_max_position_embeddings=10,
            ),
        ),
    ),
    "qwen2": ("Qwen2", {}),
    "qwen2 with a window": (
        "Qwen2",
        dict(use_sliding_window=True, sliding_window=5, max_window_layers=1),
    ),
    "qwen3": ("Qwen3", dict(head_dim=12)),
    "qwen3 with biases and a window": (
        "Qwen3",
        dict(
            head_dim=8,
            attention_bias=True,
            use_sliding_window=True,
            sliding_window=5,
            max_window_layers=1,
        ),
    ),
    "mistral": ("Mistral", dict(sliding_window=5)),
    "mistral without a window": ("Mistral", dict(sliding_window=None, head_dim=12)),
    "olmo2": ("Olmo2", {}),
    "olmo2 with biases, tied": (
        "Olmo2",
        dict(
            hidden_size=36,
            num_attention_heads=6,
            num_key_value_heads=3,
            attention_bias=True,
            tie_word_embeddings=True,
            hidden_act="gelu",
            rope_parameters=dict(ROPE, rope_type="linear", factor=2.0),
        ),
    ),
    "phi3": ("Phi3", dict(pad_token_id=0)),
    "phi3 turned in part, with a window": (
        "Phi3",
        dict(
            PHI3,
            num_key_value_heads=None,
            sliding_window=5,
            rope_parameters=dict(ROPE, rope_type="default", partial_rotary_factor=0.7),
        ),
    ),
    "phi3 longrope, turned in part, tied": (
        "Phi3",
        dict(
            PHI3,
            tie_word_embeddings=True,
            original_max_position_embeddings=10,
            rope_parameters=dict(
                ROPE,
                rope_type="longrope",
                partial_rotary_factor=0.75,
                short_factor=[1.0, 1.1, 1.2],
                long_factor=[1.0, 2.0, 3.0],
            ),
        ),
    ),
    "qwen3 moe": (
        "Qwen3Moe",
        dict(
            head_dim=12,
            moe_intermediate_size=20,
            num_experts=5,
            num_experts_per_tok=2,
            norm_topk_prob=True,
            mlp_only_layers=[1],
        ),
    ),
    "qwen3 moe with a window, every second layer, shares of all": (
        "Qwen3Moe",
        dict(
            head_dim=8,
            attention_bias=True,
            use_sliding_window=True,
            sliding_window=5,
            moe_intermediate_size=24,
            num_experts=6,
            num_experts_per_tok=3,
            decoder_sparse_step=2,
            tie_word_embeddings=True,
        ),
    ),
    "qwen3 moe of another activation": (
        "Qwen3Moe",
        dict(
            head_dim=8,
            hidden_act="gelu",
            moe_intermediate_size=24,
            num_experts=3,
            num_experts_per_tok=2,
        ),
    ),
    "qwen3 moe without experts": ("Qwen3Moe", dict(head_dim=8, num_experts=0)),
    "mixtral": ("Mixtral", dict(sliding_window=5, num_local_experts=4, router_jitter_noise=0.1)),
    "mixtral, three of three": (
        "Mixtral",
        dict(num_local_experts=3, num_experts_per_tok=3, head_dim=12, num_key_value_heads=4),
    ),
    "qwen2 moe": (
        "Qwen2Moe",
        dict(
            moe_intermediate_size=20,
            shared_expert_intermediate_size=28,
            num_experts=5,
            num_experts_per_tok=2,
        ),
    ),
    "qwen2 moe with a window, without biases, normed": (
        "Qwen2Moe",
        dict(
            moe_intermediate_size=24,
            shared_expert_intermediate_size=12,
            num_experts=4,
            num_experts_per_tok=1,
            norm_topk_prob=True,
            qkv_bias=False,
            use_sliding_window=True,
            sliding_window=5,
            max_window_layers=2,
            mlp_only_layers=[0],
        ),
    ),
    "gemma2": (
        "Gemma2",
        dict(head_dim=8, sliding_window=6, query_pre_attn_scalar=12, tie_word_embeddings=True),
    ),
    "gemma3": (
        "Gemma3Text",
        dict(
            num_hidden_layers=4,
            head_dim=8,
            sliding_window=6,
            sliding_window_pattern=3,
            query_pre_attn_scalar=12,
            rope_scaling=dict(rope_type="linear", factor=8.0),
        ),
    ),
    "gemma3 with biases and a cap, not tied": (
        "Gemma3Text",
        dict(
            head_dim=12,
            sliding_window=4,
            layer_types=["full_attention", "sliding_attention", "sliding_attention"],
            query_pre_attn_scalar=7,
            attention_bias=True,
            final_logit_softcapping=3.0,
            tie_word_embeddings=False,
            rope_parameters=dict(
                full_attention=dict(
                    rope_type="yarn",
                    rope_theta=500.0,
                    factor=4.0,
                    original_max_position_embeddings=16,
                ),
                sliding_attention=dict(rope_type="default", rope_theta=30.0),
            ),
        ),
    ),
    "gemma3 of one kind of layer": (
        "Gemma3Text",
        dict(
            head_dim=8,
            num_key_value_heads=1,
            layer_types=["full_attention"] * 3,
            rope_parameters=dict(
                full_attention=dict(rope_type="dynamic", rope_theta=500.0, factor=2.0),
            ),
            max_position_embeddings=8,
        ),
    ),
    "gemma3 dynamic in some": (
        "Gemma3Text",
        dict(
            head_dim=8,
            sliding_window=5,
            max_position_embeddings=8,
            layer_types=["full_attention", "sliding_attention", "full_attention"],
            rope_parameters=dict(
                full_attention=dict(rope_type="dynamic", rope_theta=500.0, factor=2.0),
                sliding_attention=dict(rope_type="default", rope_theta=30.0),
            ),
        ),
    ),
}
BY_THE_CALL = ("dynamic", "longrope")


def make(name: str) -> tuple[Any, Any]:
    """A tiny random model of transformers and its config, weights large enough to matter."""
    kind, more = VARIANTS[name]
    config = getattr(transformers, f"{kind}Config")(**(SMALL | more))
    torch.manual_seed(0)
    config._attn_implementation = "eager"
    truth = getattr(transformers, f"{kind.removesuffix('Text')}ForCausalLM")(config).eval()
    with torch.no_grad():
        for parameter in truth.parameters():
            parameter.normal_(0, 0.3 if parameter.ndim > 1 else 0.5)
    return truth, config


def ours(truth: Any, config: Any, dialect: str) -> Decoder:
    with bound(dialect):
        decoder = Decoder(wrappers.pick_role("llm", config.model_type).spec(config)).eval()
    state = {k: v for k, v in truth.state_dict().items() if k != "model.embed_tokens.weight"}
    decoder.load_state_dict(state)
    return decoder


def run(decoder: Decoder, embeds: Tensor, chunks: list[int]) -> Tensor:
    """Logits after each chunk: [batch, chunks, vocab]."""
    batch, seq, _ = embeds.shape
    cache, rows, done = decoder.fresh(batch, seq), [], 0
    for chunk in chunks:
        lengths = torch.full((batch,), done), torch.full((batch,), chunk)
        logits, *cache = decoder(embeds[:, done : done + chunk], *lengths, *cache)
        rows.append(logits)
        done += chunk
    return torch.cat(rows, 1)


@pytest.mark.parametrize("dialect", ["standard", "decomposed", "ort"])
@pytest.mark.parametrize("name", VARIANTS)
@torch.no_grad()
def test_prompt_chunks_and_steps_equal_transformers(name: str, dialect: str) -> None:
    truth, config = make(name)
    decoder = ours(truth, config, dialect)
    embeds = torch.randn(2, 12, config.hidden_size)
    chunks = [7, 3, 1, 1]
    if any(kind in str(config.rope_parameters) for kind in BY_THE_CALL):
        # There transformers rotates the keys of one call alike, so the call must be cut as ours is.
        past, rows, done = transformers.DynamicCache(config=config), [], 0
        for chunk in chunks:
            piece = embeds[:, done : done + chunk]
            # By place: later versions of transformers call `past_key_values` just `cache`.
            out = truth(None, None, None, past, piece, use_cache=True)
            rows.append(out.logits[:, -1:])
            done += chunk
        wanted = torch.cat(rows, 1)
    else:
        ends = [sum(chunks[: i + 1]) - 1 for i in range(len(chunks))]
        wanted = truth(inputs_embeds=embeds, use_cache=False).logits[:, ends]
    error = (run(decoder, embeds, chunks) - wanted).abs().max()
    assert error < 2e-5 * wanted.abs().max()


@pytest.mark.parametrize("dialect", ["standard", "decomposed", "ort"])
@torch.no_grad()
def test_rows_of_different_length_equal_themselves_alone(dialect: str) -> None:
    truth, config = make("llama3")
    decoder = ours(truth, config, dialect)
    embeds = torch.randn(3, 9, config.hidden_size)
    lengths = torch.tensor([9, 4, 1])
    steps = torch.randn(3, 4, config.hidden_size)

    cache = decoder.fresh(3, 16)
    logits, *cache = decoder(embeds, torch.zeros(3, dtype=torch.int64), lengths, *cache)
    together = [logits]
    for i in range(4):
        one = torch.ones(3, dtype=torch.int64)
        logits, *cache = decoder(steps[:, i : i + 1], lengths + i, one, *cache)
        together.append(logits)
    for row, length in enumerate(lengths.tolist()):
        joined = torch.cat((embeds[row, :length], steps[row]))[None]
        alone = run(decoder, joined, [length, 1, 1, 1, 1])
        assert (torch.cat(together, 1)[row] - alone[0]).abs().max() < 1e-5


@pytest.mark.parametrize(("kind", "factor"), [("Llama", 0.5), ("Phi3", 0.1), ("Phi3", 1.5)])
def test_what_is_turned_of_a_head_is_followed_or_refused(kind: str, factor: float) -> None:
    """transformers' Llama passes the setting by: what such a checkpoint means nobody can say."""
    rope = dict(ROPE, rope_type="default", partial_rotary_factor=factor)
    more: dict[str, Any] = dict(rope_parameters=rope, pad_token_id=0)
    config = getattr(transformers, f"{kind}Config")(**(SMALL | more))
    with pytest.raises(BadCheckpoint, match=rf"rotary embedding of {int(8 * factor)} out of 8 is"):
        Decoder(wrappers.pick_role("llm", config.model_type).spec(config))
