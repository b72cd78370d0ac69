"""What a Kimi-Audio folder says that is not done: one sentence, the file, the key and its value."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from alm.errors import BadCheckpoint, MissingFile
from tests.wrappers.families.tiny_kimi import CODES, GOLDEN, MODEL, WHISPER, make, said
from wrappers import open_checkpoint

CASES: dict[str, tuple[str, dict[str, Any], str]] = {
    "no features": (MODEL, {"use_whisper_feature": False}, "use_whisper_feature False; known is"),
    "rope": (MODEL, {"rope_scaling": {"type": "yarn"}}, "rope_scaling {'type': 'yarn'}; known is"),
    "window": (MODEL, {"use_sliding_window": True}, "use_sliding_window True; known is False"),
    "quantized": (MODEL, {"quantization_config": {"bits": 4}}, "quantization_config {'bits': 4}"),
    "no size": (MODEL, {"hidden_size": None}, "says no hidden_size"),
    "no offset": (MODEL, {"kimia_token_offset": None}, "says no kimia_token_offset"),
    "offset": (MODEL, {"kimia_token_offset": 1056}, "kimia_token_offset 1056; it must be below"),
    "offset is": (MODEL, {"kimia_token_offset": 790}, "kimia_token_offset 790, and with tiktoken"),
    "media": (MODEL, {"kimia_media_end": 398}, "kimia_media_end 398, and with tiktoken.model it"),
    "adaptor": (MODEL, {"kimia_adaptor_input_dim": 96}, "kimia_adaptor_input_dim 96, and four"),
    "head": (MODEL, {"head_dim": 32}, "num_attention_heads 4, head_dim 32; a head is their"),
    "width": (MODEL, {"intermediate_size": 100}, "misshapen: .*gate_proj.weight is"),
    "activation": (MODEL, {"hidden_act": "tanhh"}, "unknown activation 'tanhh'"),
    "type": (MODEL, {"num_hidden_layers": "3"}, "num_hidden_layers '3'; it must be a whole number"),
    "bins": (WHISPER, {"num_mel_bins": 80}, "num_mel_bins 80; known is 128"),
    "frames": (WHISPER, {"max_source_positions": 750}, "max_source_positions 750; 30 s have 1500"),
    "few frames": (CODES, {"max_source_positions": 750}, "max_source_positions 750; 30 s have"),
    "pool": (CODES, {"pooling_kernel_size": 2}, "pooling_kernel_size 2; known is 4"),
    "pool type": (CODES, {"pooling_type": "max"}, "pooling_type 'max'; known is avg"),
    "causal": (CODES, {"encoder_causal_convolution": False}, "encoder_causal_convolution False"),
    "attention": (CODES, {"encoder_causal_attention": True}, "encoder_causal_attention True"),
    "late": (CODES, {"pooling_position": 3}, "pooling_position 3; it must be 1 to 2"),
    "layer": (CODES, {"quantize_position": 0}, "quantize_position 0; it must be 1 to 1024"),
    "codes": (CODES, {"quantize_vocab_size": 300}, "quantize_vocab_size 300, and .* has 256 rows"),
    "block": (CODES, {"quantize_causal_block_size": 2}, "quantize_causal_block_size 2; it must"),
}


@pytest.mark.parametrize("case", CASES)
def test_a_setting_that_is_not_done_is_named(tmp_path: Path, case: str) -> None:
    where, changes, sentence = CASES[case]
    make(tmp_path)
    with pytest.raises(BadCheckpoint, match=sentence):
        open_checkpoint(said(tmp_path, where, **changes))


def test_all_of_a_files_faults_are_named_at_once(tmp_path: Path) -> None:
    make(tmp_path)
    path = said(tmp_path, CODES, pooling_type="max", pooling_kernel_size=8)
    with pytest.raises(BadCheckpoint, match="pooling_kernel_size 8.*pooling_type 'max'"):
        open_checkpoint(path)


@pytest.mark.parametrize("setting", [("hop_length", 320), ("dither", 0.1), ("feature_size", 80)])
def test_another_spectrogram_is_refused(tmp_path: Path, setting: tuple[str, float]) -> None:
    path, (name, value) = make(tmp_path), setting
    file = tmp_path / CODES / "preprocessor_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {name: value}))
    with pytest.raises(BadCheckpoint, match=f"preprocessor_config.json says {name} {value} and"):
        open_checkpoint(path)


def test_without_the_tokenizer_of_sound_it_says_where_that_is(tmp_path: Path) -> None:
    path = make(tmp_path)
    shutil.move(tmp_path / CODES, path / CODES)
    inside = open_checkpoint(path)  # in the folder it is found as well
    assert list(inside.parts)[1:3] == ["glm4_voice", "nearest_code"]
    shutil.rmtree(path / CODES)
    with pytest.raises(MissingFile, match="no glm-4-voice-tokenizer .*THUDM/glm-4-voice-token"):
        open_checkpoint(path)


def test_weights_that_are_missing_or_unknown_are_named(tmp_path: Path) -> None:
    path, file = make(tmp_path), tmp_path / CODES / "model.safetensors"
    weights = load_file(file)
    book = weights.pop("codebook.weight")
    save_file(weights, file)
    with pytest.raises(BadCheckpoint, match="missing: voice_tower.codebook.weight"):
        open_checkpoint(path)
    save_file(weights | {"codebook.weight": book, "odd": torch.zeros(2)}, file)
    with pytest.raises(BadCheckpoint, match="no part of the model takes: voice_tower.odd"):
        open_checkpoint(path)


def test_an_adapter_is_refused(tmp_path: Path) -> None:
    path = make(tmp_path)
    (path / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    save_file({"x": torch.zeros(1)}, path / "adapter_model.safetensors")
    with pytest.raises(BadCheckpoint, match="PEFT adapter .* not applied to this family"):
        open_checkpoint(path)


def test_another_tokenizer_is_refused(tmp_path: Path) -> None:
    path = make(tmp_path)
    file = path / "tokenizer_config.json"
    file.write_text(json.dumps({"tokenizer_class": "Qwen2Tokenizer"}))
    with pytest.raises(BadCheckpoint, match="tokenizer_class: 'Qwen2Tokenizer'; known is TikTok"):
        open_checkpoint(path)
    file.unlink()
    (path / "tiktoken.model").unlink()
    with pytest.raises(MissingFile, match="there is no file .*tiktoken.model"):
        open_checkpoint(path)


def test_forms_of_the_checkpoint_that_are_out_there_load_alike(tmp_path: Path) -> None:
    wanted = open_checkpoint(GOLDEN / MODEL)
    make(tmp_path)
    path = said(tmp_path, MODEL, model_type="qwen2", rope_scaling=None, kimia_media_end=None)
    file = tmp_path / WHISPER / "model.safetensors"  # as fine-tuning exports it
    save_file({name.removeprefix("model."): w for name, w in load_file(file).items()}, file)
    made = open_checkpoint(path)
    assert made.family == "kimi_audio" and made.tokenizer_json == wanted.tokenizer_json
    assert made.facts.prompt == wanted.facts.prompt and made.facts.tokens == wanted.facts.tokens
    assert any("148,032 weights" in note for note in made.notes)


def test_a_tied_llm_has_its_table_for_a_head(tmp_path: Path) -> None:
    make(tmp_path)
    path = said(tmp_path, MODEL, tie_word_embeddings=True)
    with pytest.raises(BadCheckpoint, match="tie_word_embeddings True, and .* lm_head.weight"):
        open_checkpoint(path)
