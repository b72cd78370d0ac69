"""Qwen3-ASR and its aligner in their authors' own layout, as transformers 5 would have saved them.

The first uploads are for the authors' package `qwen_asr`: all settings are in a `thinker_config`,
all weights under `thinker.`, and the projector's two layers are the tower's.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import Qwen3ASRConfig

from alm.errors import BadCheckpoint
from wrappers.checkpoint import limits

SECTION = "thinker_config"
ALIGNER = "forced_aligner"  # in the section's model_type
# What the authors' classes take for a key that config.json leaves out, where transformers' differ.
AUDIO = dict(
    encoder_layers=32,
    encoder_attention_heads=20,
    encoder_ffn_dim=5120,
    d_model=1280,
    n_window=100,
    n_window_infer=400,
)
TEXT = dict(
    vocab_size=151936,
    hidden_size=4096,
    intermediate_size=22016,
    num_hidden_layers=32,
    num_attention_heads=32,
    num_key_value_heads=32,
    head_dim=128,
    max_position_embeddings=128000,
    rms_norm_eps=1e-6,
    tie_word_embeddings=False,
    attention_bias=False,
    hidden_act="silu",
)
THETA = 5e6
RENAMED = (
    ("audio_tower.proj1.", "multi_modal_projector.linear_1."),
    ("audio_tower.proj2.", "multi_modal_projector.linear_2."),
    ("audio_tower.", "audio_tower."),
    ("model.", "language_model.model."),
    ("lm_head.", "language_model.lm_head."),
)


def is_theirs(plain: Mapping[str, Any]) -> bool:
    """Whether a config.json is in the authors' layout."""
    return isinstance(plain.get(SECTION), dict)


def aligns(plain: Mapping[str, Any]) -> bool:
    """Whether it is the aligner's."""
    return is_theirs(plain) and ALIGNER in str(plain[SECTION].get("model_type"))


def config(plain: Mapping[str, Any], file: Path) -> Qwen3ASRConfig:
    """transformers' config of the same model.

    Raises:
        BadCheckpoint: sections missing, out of their limits, or with a rotary scaling.
    """
    theirs = plain[SECTION]
    limits.check(theirs, f"{file}: {SECTION}")
    audio, text = (theirs.get(name) for name in ("audio_config", "text_config"))
    if not isinstance(audio, dict) or not isinstance(text, dict):
        raise BadCheckpoint(f"{file}: {SECTION} lacks audio_config or text_config")
    sizes = {name: audio.get(name, default) for name, default in AUDIO.items()}
    more = {name: audio[name] for name in ("num_mel_bins", "output_dim") if name in audio}
    more |= {n: audio[n] for n in ("downsample_hidden_size", "activation_function") if n in audio}
    words = {name: text.get(name, default) for name, default in TEXT.items()}
    ids = {n: theirs[n] for n in ("audio_token_id", "timestamp_token_id") if n in theirs}
    if aligns(plain):
        ids |= {"num_labels": theirs.get("classify_num"), "token_classification_bias": False}
        if not isinstance(ids["num_labels"], int) or not 0 < ids["num_labels"] <= 2**20:
            raise BadCheckpoint(f"{file}: {SECTION} says classify_num: {ids['num_labels']!r:.40}")
    return Qwen3ASRConfig(
        audio_config={"model_type": "qwen3_asr_encoder"} | sizes | more,
        text_config={"model_type": "qwen3", "rope_parameters": _rope(text, file)} | words,
        tie_word_embeddings=words["tie_word_embeddings"],
        **ids,
    )


def _rope(text: Mapping[str, Any], file: Path) -> dict[str, Any]:
    """Plain rotary parameters: their three rotations have one position each for sound and text."""
    scaling = text.get("rope_scaling") or {}
    kind = scaling.get("rope_type", scaling.get("type", "default"))
    if kind != "default":
        raise BadCheckpoint(
            f"{file}: {SECTION}.text_config.rope_scaling says {kind!r:.40}, and known of this "
            "family is 'default'"
        )
    return {"rope_type": "default", "rope_theta": text.get("rope_theta", THETA)}


def published(name: str) -> str:
    """A weight's name in the authors' layout -> the one of other folders of audio LLMs."""
    inner = name.removeprefix("thinker.")
    if inner == name:
        return name
    for theirs, ours in RENAMED:
        if inner.startswith(theirs):
            return ours + inner.removeprefix(theirs)
    return name
