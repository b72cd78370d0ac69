"""Granite Speech's folders: what a manifest says of them, their forms, and which are refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer

from alm.errors import BadCheckpoint
from alm.facts import AudioFacts, TokenFacts
from tests.reference import DATA
from tests.wrappers.checkpoint.checkpoints import Copy, refused, without
from tests.wrappers.families import tiny_granite_speech
from tests.wrappers.families.tiny_granite_speech import ASK, RATE, SIZES, Tiny
from tests.wrappers.families.tiny_hf import noise
from tests.wrappers.families.tiny_windowed import changed, processed
from wrappers import open_checkpoint
from wrappers.checkpoint.weights.hollow import filled


@pytest.fixture(scope="module", params=SIZES)
def each(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    """A checkpoint of each kind."""
    return tiny_granite_speech.make(tmp_path_factory.mktemp("each"), **SIZES[request.param])


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    """One with an adapter."""
    sizes = SIZES["3.x, with its adapter"]
    return tiny_granite_speech.make(tmp_path_factory.mktemp("granite_speech"), **sizes)


@pytest.fixture
def copy(tiny: Tiny, tmp_path: Path) -> Copy:
    return Copy(tiny.folder / "config.json", tmp_path)


def test_the_manifest_states_what_is_heard(tiny: Tiny) -> None:
    made = open_checkpoint(tiny.folder)
    assert made.roles == {
        **{"mel": "frontend", "granite_speech": "encoder"},
        **{"qformer": "bridge", "decoder": "decoder"},
    }
    # Three quarters of 4096 positions, three for each 15 pairs of frames.
    assert made.facts.audio == AudioFacts(RATE, "mean", 257, 1024 * 15 * 320, "each")
    assert made.facts.dimensions.audio_tokens == 3 * 1024
    assert made.facts.tokens == TokenFacts(eos=(0,), penalize_prompt=True)
    assert made.facts.prompt.clip_first and made.facts.source["adapter"] == "LoRA"
    assert any("writes the day's date" in note for note in made.notes)


def test_an_llm_of_a_long_context_hears_ten_minutes(tmp_path: Path) -> None:
    folder = tiny_granite_speech.make(tmp_path, max_position_embeddings=131_072).folder
    made = open_checkpoint(folder)
    assert made.facts.audio.window_samples == 600 * RATE
    assert made.facts.dimensions.audio_tokens == 6000
    assert not made.facts.prompt.clip_first and not made.notes


def test_prompts_are_those_of_the_template(each: Tiny) -> None:
    made = open_checkpoint(each.folder)
    tokenizer, prompt = Tokenizer.from_str(made.tokenizer_json), made.facts.prompt
    clips = [noise(RATE), noise(400)]
    text = prompt.start + prompt.turn.replace("{clips}", prompt.clip * 2).replace("{}", ASK)
    for clip in clips:
        heard = "<|audio|>" * each.rows_of(len(clip))
        text = text.replace(prompt.placeholder, heard.replace("<|audio|>", "<|heard|>"), 1)
    text = text.replace("<|heard|>", "<|audio|>")
    wanted = each.ids([(ASK, clips, [])])
    assert tokenizer.encode(text, add_special_tokens=False).ids == wanted


def test_prompts_are_those_of_the_processor(tmp_path: Path) -> None:
    """As transformers' processor wrote this one, which wants torchaudio: see tests/data."""
    wanted = np.load(DATA / "granite_speech.npz")["ids"].tolist()
    assert tiny_granite_speech.make(tmp_path).ids([(ASK, [noise(RATE)], [])]) == wanted


def test_adapters_of_either_transformers_are_one(tiny: Tiny, copy: Copy) -> None:
    file = copy.folder / "adapter_model.safetensors"
    state = load_file(file)
    newer = "model.model.language_model."
    names = {name: name.replace("model.language_model.model.", newer) for name in state}
    assert all(newer in name for name in names.values())
    save_file({names[name]: tensor for name, tensor in state.items()}, file)
    got, want = (
        filled(open_checkpoint(folder).part("decoder", "ort")).state_dict()
        for folder in (copy.folder, tiny.folder)
    )
    assert all(torch.equal(got[name], want[name]) for name in want)


def test_a_merged_folder_may_say_that_it_has_no_adapter(copy: Copy) -> None:
    for file in copy.folder.glob("adapter_*"):
        file.unlink()
    changed(copy, "", has_lora_adapter=False)
    assert not open_checkpoint(copy.folder).facts.prompt.clip_first


def test_the_published_layout_is_the_same_folder(tiny: Tiny, copy: Copy) -> None:
    """Settings in preprocessor_config.json, the template in tokenizer_config.json."""
    file = copy.folder / "processor_config.json"
    plain = json.loads(file.read_text())
    extractor = plain.pop("audio_processor")
    file.write_text(json.dumps(plain))
    kept = {k: extractor[k] for k in ("melspec_kwargs", "sampling_rate")}
    copy.json("preprocessor_config.json", **kept)
    template = copy.folder / "chat_template.jinja"
    copy.json("tokenizer_config.json", chat_template=template.read_text())
    template.unlink()
    assert open_checkpoint(copy.folder).facts.prompt == open_checkpoint(tiny.folder).facts.prompt
    copy.json("preprocessor_config.json", projector_window_size=12)
    assert "projector_window_size 12 and not 15" in refused(copy, BadCheckpoint)


def unannounced(copy: Copy) -> None:
    for file in copy.folder.glob("adapter_*"):
        file.unlink()


def other_template(copy: Copy) -> None:
    file = copy.folder / "chat_template.jinja"
    file.write_text(file.read_text().replace("{{ message['content'] }}", "{{ loop.index }}"))


def shapes(copy: Copy) -> None:
    name = "encoder.layers.1.conv.up_conv.weight"
    copy.weights("", lambda s: s.update({name: torch.ones(3, 36, 1)}))


CASES: dict[str, tuple[tuple[str, ...], Callable[[Copy], Any]]] = {
    "an adapter that is announced and not there": (
        ("has_lora_adapter: true", "holds no adapter_config.json"),
        unannounced,
    ),
    "blocks beyond the positions": (
        ("context_size 300, more than the 210 of max_pos_emb",),
        lambda c: changed(c, "encoder_config", context_size=300),
    ),
    "sizes of a wrong kind": (
        ("encoder_config.num_heads 0; it must be a whole number from 1", "window_size 'a'"),
        lambda c: (changed(c, "encoder_config", num_heads=0), changed(c, "", window_size="a")),
    ),
    "windows that are no queries": (
        ("window_size 15 and downsample_rate 4, which do not go into each other",),
        lambda c: (
            changed(c, "", downsample_rate=4),
            processed(c, "audio_processor", projector_downsample_rate=4),
        ),
    ),
    "another bridge": (
        ("projector_config.model_type: 'bert'; known is blip_2_qformer",),
        lambda c: changed(c, "", projector_config={"model_type": "bert"}),
    ),
    "a bridge of other widths": (
        ("encoder_hidden_size: 40, and frames are 36", "hidden_size: 28, which 3 heads"),
        lambda c: changed(c, "projector_config", encoder_hidden_size=40, num_attention_heads=3),
    ),
    "a bridge that reads text": (
        ("use_qformer_text_input: true",),
        lambda c: changed(c, "projector_config", use_qformer_text_input=True),
    ),
    "an unknown activation of the bridge": (
        ("the Q-Former's activation_function 'mish' is unknown",),
        lambda c: changed(c, "projector_config", hidden_act="mish"),
    ),
    "another encoder": (
        ("encoder_config.model_type: 'whisper'; known is granite_speech_encoder",),
        lambda c: changed(c, "", encoder_config={"model_type": "whisper"}),
    ),
    "an unknown LLM": (
        ("text_config.model_type: ", "granitemoe"),
        lambda c: changed(c, "", text_config={"model_type": "granitemoe"}),
    ),
    "an extractor of another spectrogram": (
        ("n_fft 1024 and not 512", "sampling_rate 8000 and not 16000", "n_mels 64 and not 80"),
        lambda c: processed(c, "audio_processor", n_fft=1024, sampling_rate=8000, n_mels=64),
    ),
    "an extractor whose settings transformers would not read": (
        ("melspec_kwargs.hop_length 80 and not 160",),
        lambda c: processed(c, "audio_processor", melspec_kwargs={"hop_length": 80}),
    ),
    "another token for audio in the processor": (
        ("has '<|audio|>' for audio in its config and '<|pad|>' in its processor",),
        lambda c: processed(c, "", audio_token="<|pad|>"),
    ),
    "a token for audio that no tokenizer has": (
        ("says that token 5000 stands for audio",),
        lambda c: changed(c, "", audio_token_index=5000),
    ),
    "a chat template that writes no words": (("its chat template",), other_template),
    "weights missing from every piece": (
        (
            "encoder.layers.1.conv.batch_norm.running_var",
            "projector.query",
            "language_model.model.norm.weight",
        ),
        lambda c: c.weights("", without("1.conv.batch_norm.running_var", "query", "model.norm.")),
    ),
    "a weight of another shape": (
        ("encoder.layers.1.conv.up_conv.weight is [3, 36] and not [144, 36]",),
        shapes,
    ),
    "a weight that no part takes": (
        ("encoder.layers.0.attn.to_k.weight",),
        lambda c: c.weights(
            "", lambda s: s.update({"encoder.layers.0.attn.to_k.weight": torch.ones(3)})
        ),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_folder_that_cannot_be_followed_is_one_sentence(copy: Copy, case: str) -> None:
    names, change = CASES[case]
    change(copy)
    sentence = refused(copy, BadCheckpoint)
    assert all(name in sentence for name in names), sentence


def test_layers_that_the_bridge_reads_beside_must_be_there(tmp_path: Path) -> None:
    sizes = SIZES["plus, another LLM"]
    copy = Copy(
        tiny_granite_speech.make(tmp_path / "plus", **sizes).folder / "config.json", tmp_path
    )
    changed(copy, "encoder_config", cat_hidden_layers=[2, 2])
    assert "cat_hidden_layers [2, 2], one of them twice" in refused(copy, BadCheckpoint)
    changed(copy, "encoder_config", cat_hidden_layers=[4, 0])
    assert "cat_hidden_layers" in refused(copy, BadCheckpoint)
