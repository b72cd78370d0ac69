"""Phi-4-multimodal: forms of a folder that load alike, and those that are refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from alm.errors import BadCheckpoint
from tests.wrappers.checkpoint.checkpoints import Copy, refused, without
from tests.wrappers.families import tiny_phi4_multimodal
from tests.wrappers.families.tiny_phi4_multimodal import PLACEHOLDER, TOKENS, Tiny
from tests.wrappers.families.tiny_windowed import changed
from wrappers import open_checkpoint
from wrappers.checkpoint.weights.hollow import filled

EARS = "model.embed_tokens_extend.audio_embed."
# A piece of transformers' names -> the authors'.
THEIRS = {
    "feed_forward_in.gate_up_proj": "feed_forward_in.net.0.linear",
    "feed_forward_in.down_proj": "feed_forward_in.net.2",
    "feed_forward_out.gate_up_proj": "feed_forward_out.net.0.linear",
    "feed_forward_out.down_proj": "feed_forward_out.net.2",
    **{f"encoder.encoders.{i}.self_attn.{n}_proj": f"encoder.encoders.{i}.self_attn.linear_{n}"
       for i in range(2) for n in "qkv"},
    **{f"encoder.encoders.{i}.self_attn.o_proj": f"encoder.encoders.{i}.self_attn.linear_out"
       for i in range(2)},
    "up_proj_for_speech": "audio_projection.speech.0",
    "down_proj_for_speech": "audio_projection.speech.2",
    "up_proj_for_vision_speech": "audio_projection.vision.0",
    "down_proj_for_vision_speech": "audio_projection.vision.2",
}  # fmt: skip
ADAPTED = ("qkv_proj", "o_proj", "gate_up_proj", "down_proj")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    return tiny_phi4_multimodal.make(tmp_path_factory.mktemp("phi4"))


@pytest.fixture(scope="module")
def theirs(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same model in its authors' layout, a LoRA for images in the weights as well."""
    folder = Path(shutil.copytree(tiny.folder, tmp_path_factory.mktemp("authors") / "model"))
    state: dict[str, Tensor] = {}
    for name, tensor in load_file(folder / "model.safetensors").items():
        for ours, their in THEIRS.items():
            if EARS in name:
                name = name.replace(ours, their)
        module = name.removesuffix(".weight")
        if name.startswith("model.layers.") and module.endswith(ADAPTED):
            name = f"{module}.base_layer.weight"
        state[name] = tensor
    for name, tensor in load_file(folder / "speech-lora" / "adapter_model.safetensors").items():
        for kind in ("speech", "vision"):
            their = name.replace("lora_A.", f"lora_A.{kind}.").replace("lora_B.", f"lora_B.{kind}.")
            state[their] = tensor if kind == "speech" else torch.ones(3, 3)
    shutil.rmtree(folder / "speech-lora")
    save_file(state, folder / "model.safetensors")
    plain = json.loads((folder / "config.json").read_text())
    audio = plain.pop("audio_config")
    del plain["vision_config"]
    names = {"attention_dim": "hidden_size", "attention_heads": "num_attention_heads"}
    names |= {"linear_units": "intermediate_size"}
    names["depthwise_seperable_out_channel"] = "depthwise_separable_out_channel"
    same = ("activation", "chunk_size", "conv_activation", "conv_glu_type", "input_size")
    same += ("ext_pw_out_channel", "kernel_size", "num_blocks", "time_reduction")
    rope = plain.pop("rope_parameters")
    plain |= {
        "model_type": "phi4mm",
        "auto_map": {"AutoConfig": "configuration_phi4mm.Phi4MMConfig"},
        "special_audio_token_id": audio["audio_token_id"],
        "partial_rotary_factor": rope["partial_rotary_factor"],
        "rope_scaling": {"type": "longrope"} | {n: rope[n] for n in rope if "_factor" in n[4:11]},
        "audio_processor": {
            "name": "cascades",
            "config": {their: audio[ours] for their, ours in names.items()}
            | {name: audio[name] for name in same}
            | {"causal": True, "input_layer": "nemo_conv", "bias_in_glu": True}
            | {"nemo_conv_settings": {"conv_channels": audio["nemo_conv_channels"]}}
            | {"relative_attention_bias_args": {
                "type": "t5", "t5_bias_max_distance": audio["bias_max_distance"]}},
        },
        "embd_layer": {"audio_embd_layer": {"downsample_rate": 1, "use_qformer": False}},
        "speech_lora": {
            **{"r": 4, "lora_alpha": 8, "dp": 0.01},
            "layer": r"((layers.*self_attn\.(qkv|o)_proj)|(layers.*mlp\.(gate_up|down)_proj))",
        },
    }  # fmt: skip
    plain["rope_scaling"] = {
        "type": "longrope",
        "short_factor": rope["short_factor"],
        "long_factor": rope["long_factor"],
    }
    (folder / "config.json").write_text(json.dumps(plain))
    return folder


def test_the_authors_layout_is_the_same_model(tiny: Tiny, theirs: Path) -> None:
    ours, other = open_checkpoint(tiny.folder), open_checkpoint(theirs)
    assert ours.facts.prompt == other.facts.prompt and ours.facts.tokens == other.facts.tokens
    assert ours.facts.dimensions == other.facts.dimensions
    assert "the LoRA in" in other.notes[0] and "4 of the projector" in other.notes[1]
    for name in ("phi4_conformer", "projector", "decoder"):
        one, two = (filled(made.part(name, "ort")).state_dict() for made in (ours, other))
        assert one.keys() == two.keys()
        assert all(torch.equal(one[key], two[key]) for key in one)
    assert torch.equal(ours.embedding(), other.embedding())


@pytest.mark.parametrize(
    ("names", "change"),
    [
        (("lacks a section audio_processor.config",), {"audio_processor": {}}),
        (("lm_head_bias True, and known is False",), {"lm_head_bias": True}),
        (("speech_lora: {'r': 4}", "known is a section of r, lora_alpha, layer, dp"),
         {"speech_lora": {"r": 4}}),
        (("embd_layer.audio_embd_layer.use_qformer True, and known is False",),
         {"embd_layer": {"audio_embd_layer": {"use_qformer": True}}}),
    ],
)  # fmt: skip
def test_what_the_authors_code_could_be_told_otherwise_is_refused(
    theirs: Path, tmp_path: Path, names: tuple[str, ...], change: dict[str, Any]
) -> None:
    copy = Copy(theirs / "config.json", tmp_path).json("config.json", **change)
    sentence = refused(copy)
    assert all(name in sentence for name in names), sentence


@pytest.mark.parametrize(
    ("name", "value"),
    [("causal", False), ("input_layer", "conv2d"), ("relative_attention_bias_args", {"type": "x"})],
)
def test_another_encoder_of_the_authors_is_refused(
    theirs: Path, tmp_path: Path, name: str, value: Any
) -> None:
    copy = Copy(theirs / "config.json", tmp_path)
    plain = json.loads(copy.config.read_text())
    plain["audio_processor"]["config"][name] = value
    copy.config.write_text(json.dumps(plain))
    assert "and known is" in refused(copy)


def extracted(copy: Copy, **values: Any) -> None:
    copy.json("preprocessor_config.json", **values)


def other_template(copy: Copy) -> None:
    file = copy.folder / "chat_template.jinja"
    file.write_text(file.read_text().replace("'<|assistant|>'", "'<|assistant|>Well: '"))


def two_adapters(copy: Copy) -> None:
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        shutil.copy(copy.folder / "speech-lora" / name, copy.folder / name)


def bare(state: dict[str, Tensor]) -> None:
    state["model.embed_tokens_extend.audio_embed.qformer.weight"] = torch.ones(3)


CASES: dict[str, tuple[tuple[str, ...], Callable[[Copy], Any]]] = {
    "widths of the convolution module": (
        ("ext_pw_out_channel 30, which must be its hidden_size 28",),
        lambda c: changed(c, "audio_config", ext_pw_out_channel=30),
    ),
    "streaming, and time that is not halved": (
        ("chunk_size 18; known is -1", "time_reduction 6, which is no power of two"),
        lambda c: (
            changed(c, "audio_config", chunk_size=18, time_reduction=6),
            extracted(c, audio_compression_rate=6),
        ),
    ),
    "a symmetric bias that ends within a piece": (
        ("bias_symmetric with bias_max_distance 30",),
        lambda c: changed(c, "audio_config", bias_symmetric=True),
    ),
    "heads that do not share the width": (
        ("hidden_size 28, which its 3 heads do not share",),
        lambda c: changed(c, "audio_config", num_attention_heads=3),
    ),
    "unknown activations": (
        ("'mish' is unknown",),
        lambda c: changed(c, "audio_config", conv_activation="mish"),
    ),
    "rows joined behind the tower": (
        ("audio_config.downsample_rate: 2; known is 1",),
        lambda c: changed(c, "audio_config", downsample_rate=2),
    ),
    "a size out of its limits": (
        ("audio_config.num_blocks 5000; it must be a whole number from 1 to 1024",),
        lambda c: changed(c, "audio_config", num_blocks=5000),
    ),
    "another tower": (
        ("audio_config.model_type: 'whisper'",),
        lambda c: changed(c, "audio_config", model_type="whisper"),
    ),
    "an extractor of another spectrogram": (
        ("feature_size 40 and not 80", "audio_compression_rate 4 and not 8",
         "audio_feat_stride 2 and not 1", "sampling_rate 8000 and not 16000"),
        lambda c: extracted(
            c, feature_size=40, audio_compression_rate=4, audio_feat_stride=2, sampling_rate=8000
        ),
    ),
    "an extractor without meaning": (
        ("hop_length 0, which is no whole number", "preemphasis 2 and mel bins from 0.0 to 9000"),
        lambda c: extracted(c, hop_length=0, preemphasis=2, mel_max_frequency=9000),
    ),
    "a window longer than its transform": (
        ("win_length 600, n_fft 512, of which none may be longer than the next",),
        lambda c: extracted(c, win_length=600),
    ),
    "a token for audio that no tokenizer has": (
        ("says that token 5000 stands for audio",),
        lambda c: changed(c, "audio_config", audio_token_id=5000),
    ),
    "another chat template": (
        ("its chat template is not the one that is known", "Well: "),
        other_template,
    ),
    "two adapters": (("are two adapters for the same LLM",), two_adapters),
    "a speech LoRA of another model": (
        ("speech-lora", "model.layers.9"),
        lambda c: other_lora(c),
    ),
    "weights missing from every piece": (
        (
            "audio_tower.encoders.1.conv.glu.b1",
            "multi_modal_projector.down_proj_for_speech.weight",
            "language_model.model.layers.0.self_attn.qkv_proj.weight",
        ),
        lambda c: c.weights(
            "", without("encoders.1.conv.glu.b1", "down_proj_for_speech", "layers.0.self_attn.qkv")
        ),
    ),
    "a weight that no part takes": (
        ("multi_modal_projector.qformer.weight",),
        lambda c: c.weights("", bare),
    ),
}  # fmt: skip


def other_lora(copy: Copy) -> None:
    file = copy.folder / "speech-lora" / "adapter_model.safetensors"
    state = {n.replace("layers.1.", "layers.9."): t for n, t in load_file(file).items()}
    save_file(state, file)


@pytest.mark.parametrize("case", CASES)
def test_a_folder_that_cannot_be_followed_is_one_sentence(
    tiny: Tiny, tmp_path: Path, case: str
) -> None:
    names, change = CASES[case]
    copy = Copy(tiny.folder / "config.json", tmp_path)
    change(copy)
    sentence = refused(copy, BadCheckpoint)
    assert all(name in sentence for name in names), sentence


def test_a_tokenizer_without_the_tokens_of_a_turn_is_refused(tiny: Tiny, tmp_path: Path) -> None:
    copy = Copy(tiny.folder / "config.json", tmp_path)
    file = copy.folder / "tokenizer.json"
    file.write_text(file.read_text().replace("<|user|>", "<|usher|>"))
    assert "lacks <|user|>" in refused(copy)
    assert TOKENS.index(PLACEHOLDER) == 6
