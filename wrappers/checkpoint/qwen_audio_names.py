"""Names of Qwen-Audio's weights: those of its own code, and those that parts have here."""

from __future__ import annotations

import re

# Ours, theirs; `N` is a layer's number. The first of theirs that fits a name is meant.
PAIRS = (
    ("audio_tower.embed_positions.weight", "transformer.audio.positional_embedding"),
    ("audio_tower.layers.N.self_attn.q_proj.", "transformer.audio.blocks.N.attn.query."),
    ("audio_tower.layers.N.self_attn.k_proj.", "transformer.audio.blocks.N.attn.key."),
    ("audio_tower.layers.N.self_attn.v_proj.", "transformer.audio.blocks.N.attn.value."),
    ("audio_tower.layers.N.self_attn.out_proj.", "transformer.audio.blocks.N.attn.out."),
    ("audio_tower.layers.N.self_attn_layer_norm.", "transformer.audio.blocks.N.attn_ln."),
    ("audio_tower.layers.N.fc1.", "transformer.audio.blocks.N.mlp.0."),
    ("audio_tower.layers.N.fc2.", "transformer.audio.blocks.N.mlp.2."),
    ("audio_tower.layers.N.final_layer_norm.", "transformer.audio.blocks.N.mlp_ln."),
    ("audio_tower.layer_norm.", "transformer.audio.ln_post."),
    ("multi_modal_projector.proj.", "transformer.audio.proj."),
    ("multi_modal_projector.audio_bos_eos_token.", "transformer.audio.audio_bos_eos_token."),
    ("audio_tower.", "transformer.audio."),
    ("language_model.model.embed_tokens.", "transformer.wte."),
    ("language_model.model.layers.N.input_layernorm.", "transformer.h.N.ln_1."),
    ("language_model.model.layers.N.post_attention_layernorm.", "transformer.h.N.ln_2."),
    ("language_model.model.layers.N.self_attn.o_proj.", "transformer.h.N.attn.c_proj."),
    ("language_model.model.layers.N.self_attn.", "transformer.h.N.attn."),
    ("language_model.model.layers.N.mlp.up_proj.", "transformer.h.N.mlp.w1."),
    ("language_model.model.layers.N.mlp.gate_proj.", "transformer.h.N.mlp.w2."),
    ("language_model.model.layers.N.mlp.down_proj.", "transformer.h.N.mlp.c_proj."),
    ("language_model.model.norm.", "transformer.ln_f."),
    ("language_model.lm_head.", "lm_head."),
)


def _rule(given: str, wanted: str, start: str) -> tuple[re.Pattern[str], str]:
    pattern = re.escape(given).replace("N", r"(\d+)")
    return re.compile(start + pattern), wanted.replace("N", r"\1")


# A sentence may hold names anywhere, and lm_head is the end of a longer one of ours.
_OURS = [_rule(theirs, ours, "^") for ours, theirs in PAIRS]
_THEIRS = [_rule(ours, theirs, "") for ours, theirs in PAIRS]


def published(name: str) -> str:
    """A weight's name in the folder -> the one that it has here."""
    for pattern, wanted in _OURS:
        if pattern.search(name):
            return pattern.sub(wanted, name)
    return name


def theirs(text: str) -> str:
    """A text with names of ours -> the same with those that the folder has."""
    for pattern, wanted in _THEIRS:
        text = pattern.sub(wanted, text)
    return text
