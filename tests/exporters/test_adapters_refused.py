"""Adapters that cannot stay files, and wrong words: refused before anything is exported."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import wrappers
from alm.errors import AlmError, BadOption
from exporters import adapters
from tests.whole import adapter_files
from tests.wrappers.families import tiny_hf

TARGETS = r".*(audio_tower.*fc1|language_model.*down_proj)"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Qwen2-Audio, and beside it `lora`, which changes its Whisper and its LLM."""
    root = tmp_path_factory.mktemp("model")
    tiny = tiny_hf.qwen2_audio(root / "checkpoint", seconds=4, hidden_size=64)
    adapter_files.save(tiny.truth, root / "lora", 1, r=2, target_modules=TARGETS)
    return tiny.folder


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (dict(target_modules=["q_proj"], use_dora=True), "is DoRA, which is no plain LoRA"),
        (dict(target_modules=["q_proj"], bias="lora_only"), "trained biases"),
        (dict(target_modules=["q_proj"], modules_to_save=["lm_head"]), "whole"),
        (dict(target_modules=["embed_tokens"]), "embed_tokens.weight whole"),
        (dict(target_modules=["conv1"]), "a Conv1d, and at run time only Linears"),
    ],
)
def test_an_export_refuses_what_only_merging_follows(
    folder: Path, tmp_path: Path, settings: dict[str, Any], sentence: str
) -> None:
    tiny = tiny_hf.qwen2_audio(tmp_path / "checkpoint", seconds=4, hidden_size=64)
    lora = adapter_files.save(tiny.truth, tmp_path / "lora", 2, r=2, **settings)
    checkpoint = wrappers.open_checkpoint(folder)
    with pytest.raises(AlmError, match=sentence):
        adapters.read([f"a={lora}"], checkpoint, [*checkpoint.parts])


def test_wrong_words_of_an_export_are_refused(folder: Path) -> None:
    checkpoint, lora = wrappers.open_checkpoint(folder), folder.parent / "lora"
    for words, sentence in (
        ([f"../a={lora}"], "wanted --adapter NAME=DIR"),
        ([f"a={lora}", f"a={lora}"], "names a twice"),
        ([f"a={folder}"], "there is no adapter_config.json"),
    ):
        with pytest.raises(AlmError, match=sentence):
            adapters.read(words, checkpoint, [*checkpoint.parts])
    with pytest.raises(BadOption, match="changes part whisper, which is not exported"):
        adapters.read([f"a={lora}"], checkpoint, ["decoder", "projector"])
