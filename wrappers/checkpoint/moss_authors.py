"""MOSS-Transcribe-Diarize in its authors' own layout, as transformers 5.24 would have saved it.

The first upload is for code of its own, which is not run: the tower is `whisper_encoder`, the
projector `vq_adaptor.layers`, and the config names the width of a row.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import MossTranscribeDiarizeConfig

from alm.errors import BadCheckpoint
from wrappers.checkpoint import limits
from wrappers.checkpoint.plain_files import no_model

WIDTH = "adaptor_input_dim"  # of a row, which transformers works out
TOWER = "moss_transcribe_diarize_audio"
# A Whisper's keys that say something of the encoder; the rest is of its decoder and of training.
AUDIO = (
    *("num_mel_bins", "max_source_positions", "d_model", "encoder_layers"),
    *("encoder_attention_heads", "encoder_ffn_dim", "activation_function"),
)
WHOLE = ("audio_token_id", "audio_merge_size", "tie_word_embeddings")
RENAMED = (
    ("model.whisper_encoder.", "model.audio_tower."),
    ("model.vq_adaptor.layers.0.", "model.multi_modal_projector.linear_1."),
    ("model.vq_adaptor.layers.2.", "model.multi_modal_projector.linear_2."),
    ("model.vq_adaptor.layers.3.", "model.multi_modal_projector.norm."),
)


def is_theirs(plain: Mapping[str, Any]) -> bool:
    """Whether a config.json is in the authors' layout."""
    return WIDTH in plain


def config(plain: Mapping[str, Any], file: Path) -> MossTranscribeDiarizeConfig:
    """transformers' config of the same model.

    Raises:
        BadCheckpoint: sections missing or out of their limits, quantized weights, or a row of
            another width than its frames have.
    """
    limits.check(plain, str(file))
    audio, text = (plain.get(name) for name in ("audio_config", "text_config"))
    if not isinstance(audio, dict) or not isinstance(text, dict):
        raise BadCheckpoint(f"{file} lacks audio_config or text_config")
    if "quantization_config" in plain:
        raise BadCheckpoint(f"{file} describes quantised weights; give the plain ones")
    if (scaled := audio.get("scale_embedding", False)) is not False:
        raise BadCheckpoint(f"{file} says audio_config.scale_embedding: {limits.shown(scaled)}")
    try:
        made = MossTranscribeDiarizeConfig(
            audio_config={"model_type": TOWER} | {n: audio[n] for n in AUDIO if n in audio},
            text_config=text,
            **{name: plain[name] for name in WHOLE if name in plain},
        )
    except Exception as error:  # transformers raises what its dataclasses raise
        raise no_model(str(file), error) from error
    if plain[WIDTH] != made.adaptor_input_dim:
        raise BadCheckpoint(
            f"{file} says {WIDTH}: {limits.shown(plain[WIDTH])}, and {made.audio_merge_size} "
            f"frames side by side are {made.adaptor_input_dim} wide"
        )
    return made


def published(name: str) -> str:
    """A weight's name in the authors' layout -> transformers' own."""
    for theirs, ours in RENAMED:
        if name.startswith(theirs):
            return ours + name.removeprefix(theirs)
    return name
