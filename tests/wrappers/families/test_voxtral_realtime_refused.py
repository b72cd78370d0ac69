"""What a Voxtral Realtime folder may say: what cannot be followed is one sentence."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from alm.errors import BadCheckpoint, MissingFile
from tests.wrappers.checkpoint.checkpoints import Copy, refused, without
from tests.wrappers.families import tiny_voxtral_realtime as tiny_family
from tests.wrappers.families.tiny_voxtral_realtime import Tiny
from tests.wrappers.families.tiny_windowed import changed
from wrappers import open_checkpoint


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    return tiny_family.make(tmp_path_factory.mktemp("realtime"))


@pytest.fixture
def copy(tiny: Tiny, tmp_path: Path) -> Copy:
    return Copy(tiny.folder / "config.json", tmp_path)


def sound(copy: Copy, **said: Any) -> None:
    """Change the section of tekken.json on sound; None takes a key out."""
    file = copy.folder / "tekken.json"
    plain = json.loads(file.read_text())
    plain["audio"] = {k: v for k, v in (plain["audio"] | said).items() if v is not None}
    file.write_text(json.dumps(plain))


def unnamed(copy: Copy, token: str, number: int) -> None:
    """Give a special token another name."""
    file = copy.folder / "tekken.json"
    other = json.dumps(f"<SPECIAL_{number}>")
    file.write_text(file.read_text().replace(json.dumps(token), other))


def extracted(copy: Copy, **said: Any) -> None:
    copy.json("preprocessor_config.json", **said)


CASES: dict[str, tuple[tuple[str, ...], Callable[[Copy], Any]]] = {
    "another tower": (
        ("audio_config.model_type: 'whisper'",),
        lambda c: changed(c, "", audio_config={"model_type": "whisper"}),
    ),
    "steps that are no rows": (
        ("audio_length_per_tok: 6 and downsample_factor: 4; the first must be twice the second",),
        lambda c: changed(c, "", audio_length_per_tok=6),
    ),
    "a window of one frame, and a rope of a length": (
        ("sliding_window: 1, which is no window", "rope_type: 'dynamic', whose angles"),
        lambda c: changed(
            c, "audio_config", sliding_window=1,
            rope_parameters=dict(rope_type="dynamic", rope_theta=1e4, factor=2.0),
        ),
    ),
    "unknown activations": (
        ("activation_function 'mish' is unknown", "activation 'selu' is unknown"),
        lambda c: (
            changed(c, "audio_config", hidden_act="mish"),
            changed(c, "", projector_hidden_act="selu"),
        ),
    ),
    "an extractor of another spectrogram": (
        ("feature_size 80 and not 20", "hop_length 200 and not 160", "win_length 512 and not 400"),
        lambda c: extracted(c, feature_size=80, hop_length=200, win_length=512),
    ),
    "as loud as the whole clip": (
        ("global_log_mel_max None; a stream is as loud as it says beforehand",),
        lambda c: extracted(c, global_log_mel_max=None),
    ),
    "no section on sound": (
        ("tekken.json has no section 'audio'",),
        lambda c: (c.folder / "tekken.json").write_text(json.dumps(tiny_family.tiny_hf.tekken())),
    ),
    "no stream, another rate, and other mels": (
        (
            "transcription_format: 'instruct' and not 'streaming'",
            "frame_rate: 50.0 and not 12.5",
            "audio_encoding_config.num_mel_bins: 128 and not 20",
        ),
        lambda c: sound(
            c, transcription_format="instruct", frame_rate=50.0,
            audio_encoding_config=dict(num_mel_bins=128, hop_length=160, window_size=400),
        ),
    ),
    "no silence, a delay between steps, and an unknown key": (
        (
            "streaming_n_left_pad_tokens: 0; it must be from 1",
            "transcription_delay_ms: 100; it must be a multiple of 80",
            "streaming_beam, which is not known here",
            "chunk_length_s: 30",
        ),
        lambda c: sound(
            c, streaming_n_left_pad_tokens=0, transcription_delay_ms=100, streaming_beam=3,
            chunk_length_s=30,
        ),
    ),
    "no delay": (
        ("transcription_delay_ms: None",), lambda c: sound(c, transcription_delay_ms=None),
    ),
    "tokens that are no tokens": (
        ("lacks [STREAMING_PAD], [STREAMING_WORD]",),
        lambda c: (unnamed(c, "[STREAMING_PAD]", 900), unnamed(c, "[STREAMING_WORD]", 901)),
    ),
    "weights missing from every piece": (
        (
            "audio_tower.embedder.conv2.bias",
            "multi_modal_projector.linear_2.weight",
            "language_model.model.layers.1.ada_rms_norm.linear1.weight",
        ),
        lambda c: c.weights("", without("conv2.bias", "linear_2.weight", "1.ada_rms_norm.linear1")),
    ),
    "a weight that no part takes": (
        ("audio_tower.embed_positions.weight",),
        lambda c: c.weights(
            "", lambda s: s.update({"audio_tower.embed_positions.weight": torch.ones(3)})
        ),
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_a_folder_that_cannot_be_followed_is_one_sentence(copy: Copy, case: str) -> None:
    names, change = CASES[case]
    change(copy)
    sentence = refused(copy, BadCheckpoint)
    assert all(name in sentence for name in names), sentence


def test_a_folder_without_tekken_json_lacks_it(copy: Copy) -> None:
    (copy.folder / "tekken.json").unlink()
    assert "tekken.json" in refused(copy, MissingFile)


def test_an_llm_that_sees_back_over_everything_has_no_live_run(copy: Copy) -> None:
    changed(copy, "text_config", sliding_window=None)
    assert open_checkpoint(copy.folder).facts.live.window == 0


def test_the_length_of_a_folders_defaults_is_not_heeded_as_in_transformers(
    tiny: Tiny, copy: Copy
) -> None:
    """The tiny folder says max_new_tokens: 8, and transformers says a token for every step."""
    copy.json("generation_config.json", max_length=30, max_new_tokens=None)
    for folder in (tiny.folder, copy.folder):
        options = open_checkpoint(folder).facts.generation
        assert options["max_new_tokens"] == 2**24 and "max_length" not in options
    assert len(tiny.answer(np.zeros(16_000, np.float32))) == 13 + 10
