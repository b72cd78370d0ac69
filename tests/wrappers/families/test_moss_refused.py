"""Folders of MOSS-Transcribe-Diarize that cannot be followed: each refused in one sentence."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from alm.errors import BadCheckpoint
from tests.wrappers.checkpoint.checkpoints import Copy, refused, without
from tests.wrappers.families import tiny_moss
from tests.wrappers.families.tiny_moss import ASKING, authors
from tests.wrappers.families.tiny_windowed import Tiny, changed, processed


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    return tiny_moss.make(tmp_path_factory.mktemp("moss"))


@pytest.fixture
def copy(tiny: Tiny, tmp_path: Path) -> Copy:
    return Copy(tiny.folder / "config.json", tmp_path)


def other_template(copy: Copy) -> None:
    file = copy.folder / "chat_template.jinja"
    file.write_text(ASKING.replace("of.clips + of.text", "of.text + of.clips"))


def lacking(copy: Copy) -> None:
    file = copy.folder / "tokenizer.json"
    file.write_text(file.read_text().replace("<|audio_start|>", "<|other|>"))


CASES: dict[str, tuple[tuple[str, ...], Callable[[Copy], Any]]] = {
    "a row of other frames in the processor": (
        ("audio_merge_size 2, and ", "config.json 4"),
        lambda c: processed(c, "", audio_merge_size=2),
    ),
    "windows of other samples in the config": (
        ("windows of 480000 samples, and ", "audio_chunk_size 160000"),
        lambda c: changed(c, "", audio_chunk_size=160_000),
    ),
    "no frames in a row": (
        ("audio_merge_size: 0; it must be a whole number from 1 to 64",),
        lambda c: changed(c, "", audio_merge_size=0),
    ),
    "windows that are no rows": (
        ("windows of 1500 frames, which are no rows of 7",),
        lambda c: changed(c, "", audio_merge_size=7),
    ),
    "times at odd places": (
        (
            "time_marker_every_seconds 2.5; it must be a whole number",
            "audio_tokens_per_second 16.7; it must be eighths",
            "enable_time_marker False, which transformers does not heed",
        ),
        lambda c: processed(
            c,
            "",
            time_marker_every_seconds=2.5,
            audio_tokens_per_second=16.7,
            enable_time_marker=False,
        ),
    ),
    "another tower": (
        ("audio_config.model_type: 'whisper'",),
        lambda c: changed(c, "", audio_config={"model_type": "whisper"}),
    ),
    "positions of another window": (
        ("max_source_positions: 1000, and the extractor's windows are 1500 frames",),
        lambda c: changed(c, "audio_config", max_source_positions=1000),
    ),
    "unknown activations": (
        ("activation_function 'mish' is unknown", "activation 'selu' is unknown"),
        lambda c: (
            changed(c, "audio_config", activation_function="mish"),
            changed(c, "", projector_hidden_act="selu"),
        ),
    ),
    "an extractor of another spectrogram": (
        ("dither 0.1 and not 0", "feature_size 80 and not 20", "hop_length 200 and not 160"),
        lambda c: processed(c, "feature_extractor", dither=0.1, feature_size=80, hop_length=200),
    ),
    "an extractor that pads in front": (
        ("padding_side 'left'",),
        lambda c: processed(c, "feature_extractor", padding_side="left"),
    ),
    "another token for audio in the processor": (
        ("audio_token '<|im_end|>'; known is <|audio_pad|>",),
        lambda c: processed(c, "", audio_token="<|im_end|>"),
    ),
    "another token for audio in the config": (
        ("says that '<|audio_end|>' stands for audio; known is <|audio_pad|>",),
        lambda c: changed(c, "", audio_token_id=4),
    ),
    "a token for audio that no tokenizer has": (
        ("says that token 5000 stands for audio",),
        lambda c: changed(c, "", audio_token_id=5000),
    ),
    "a tokenizer without the tokens of a prompt": (("lacks <|audio_start|>",), lacking),
    "a template that writes clips behind the words": (
        ("its chat template is no start, turns and an end that are alike",),
        other_template,
    ),
    "the authors' layout with rows of another width": (
        ("adaptor_input_dim: 90, and 4 frames side by side are 112 wide",),
        lambda c: authors(c, adaptor_input_dim=90),
    ),
    "the authors' layout without a section": (
        ("lacks audio_config or text_config",),
        lambda c: authors(c, text_config=None),
    ),
    "the authors' layout quantised": (
        ("describes quantised weights; give the plain ones",),
        lambda c: authors(c, quantization_config={"quant_method": "awq"}),
    ),
    "weights missing from every piece": (
        (
            "audio_tower.layers.1.fc2.bias",
            "multi_modal_projector.norm.weight",
            "language_model.model.norm.weight",
        ),
        lambda c: c.weights(
            "", without("layers.1.fc2.bias", "projector.norm", "language_model.norm.weight")
        ),
    ),
    "a weight that no part takes": (
        ("multi_modal_projector.linear_3.weight",),
        lambda c: c.weights(
            "", lambda s: s.update({"model.multi_modal_projector.linear_3.weight": torch.ones(3)})
        ),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_folder_that_cannot_be_followed_is_one_sentence(copy: Copy, case: str) -> None:
    names, change = CASES[case]
    change(copy)
    sentence = refused(copy, BadCheckpoint)
    assert all(name in sentence for name in names), sentence
