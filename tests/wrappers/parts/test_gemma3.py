"""Gemma 3's config: older keys read alike, and what cannot be done refused in a sentence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from alm.errors import BadCheckpoint
from demo.random_checkpoint import Recipe, make
from tests.wrappers.checkpoint.checkpoints import Copy
from wrappers.checkpoint import llm_files
from wrappers.families.salmonn import Salmonn
from wrappers.layers import rope
from wrappers.layers.decoder import Decoder

SIZES: dict[str, Any] = dict(
    vocab_size=67,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=3,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=8,
    sliding_window=6,
    sliding_window_pattern=3,
    max_position_embeddings=64,
)
LINEAR = dict(rope_type="linear", factor=8.0)
LONG: dict[str, Any] = dict(
    rope_type="longrope",
    rope_theta=10000.0,
    factor=4.0,
    short_factor=[1.0] * 4,
    long_factor=[2.0] * 4,
)


def folder(path: Path, **said: Any) -> Path:
    """A folder's config.json as Gemma 3 published it, changed."""
    config = transformers.Gemma3TextConfig(**SIZES).to_dict()
    for key in ("rope_parameters", "layer_types"):
        del config[key]
    path.mkdir()
    (path / "config.json").write_text(json.dumps(config | said))
    return path


def test_published_keys_give_each_kind_of_layer_its_frequencies(tmp_path: Path) -> None:
    said = dict(rope_theta=1e6, rope_local_base_freq=5e3, rope_scaling=LINEAR)
    spec = llm_files.read_spec(folder(tmp_path / "old", sliding_window_pattern=3, **said))
    assert spec.ropes == ("sliding_attention", "sliding_attention", "full_attention")
    assert spec.windows == (6, 6, 0) and spec.scale == 256**-0.5
    decoder = Decoder(spec)
    ropes = {of.of: of.inv_freq for of in (decoder.rope, *decoder.other_ropes.values())}  # pyright: ignore
    powers = torch.arange(0, 8, 2) / 8
    torch.testing.assert_close(ropes["sliding_attention"], 1 / 5e3**powers)
    torch.testing.assert_close(ropes["full_attention"], 1 / 1e6**powers / 8)


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "sees what comes later": (
        dict(use_bidirectional_attention=True),
        "use_bidirectional_attention true: such a Gemma 3 makes embeddings",
    ),
    "a cap that transformers leaves out": (
        dict(attn_logit_softcapping=50.0),
        "attn_logit_softcapping 50.0, which transformers leaves out of a Gemma 3",
    ),
    "a window of no length": (
        dict(sliding_window=0),
        "layer_types sliding_attention and sliding_window 0",
    ),
    "a base below zero": (
        dict(rope_local_base_freq=-1.0),
        "rope_local_base_freq -1.0; it must be a number above zero",
    ),
    "frequencies of one kind that are none": (
        dict(rope_parameters=dict(full_attention=dict(rope_type="linear", factor=-2.0))),
        "rope_parameters.full_attention.factor -2.0; it must be a number above zero",
    ),
    "layers that are not there": (
        dict(layer_types=["full_attention"] * 4),
        "num_hidden_layers",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_done_is_refused(case: str, tmp_path: Path) -> None:
    said, sentence = REFUSED[case]
    with pytest.raises(BadCheckpoint) as error:
        llm_files.read_spec(folder(tmp_path / "bad", **said))
    assert sentence in str(error.value) and "config.json" in str(error.value)


def test_all_that_is_wrong_is_named_at_once(tmp_path: Path) -> None:
    said = dict(use_bidirectional_attention=True, attn_logit_softcapping=50.0)
    with pytest.raises(BadCheckpoint, match="use_bidirectional.*attn_logit_softcapping"):
        llm_files.read_spec(folder(tmp_path / "bad", **said))


def long(local: int, whole: int) -> Any:
    """A config whose two kinds of layers change frequencies at these lengths."""
    key = "original_max_position_embeddings"
    parameters = {
        "sliding_attention": LONG | {key: local},
        "full_attention": LONG | {key: whole},
    }
    return transformers.Gemma3TextConfig(**SIZES, rope_parameters=parameters)


def test_frequencies_that_change_with_the_length_are_told_once() -> None:
    assert rope.dimensions(long(16, 16)) == {"rope_switches_past": 16}
    with pytest.raises(BadCheckpoint, match="16 in some layers and 24 in others|24 in some"):
        rope.dimensions(long(16, 24))


def test_a_salmonn_on_gemma_3_hears_unscaled_unless_it_says_otherwise(tmp_path: Path) -> None:
    options = dict(head_dim=16, sliding_window=16)
    recipe = Recipe(
        window_seconds=4, audio_width=0, llm="Gemma3Text", llm_options=options, adapter=""
    )
    copy = Copy(make(tmp_path / "model", recipe), tmp_path)
    plain = Salmonn(copy.config).qformer().state_dict()["speech_llama_proj.weight"]
    scaled = Salmonn(copy.settings(scaled_audio=True).config).qformer().state_dict()
    assert torch.equal(scaled["speech_llama_proj.weight"], 8 * plain)
