"""Folders of Qwen-Audio: every form that is read alike, and every fault named."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer

from alm.errors import BadCheckpoint, MissingFile, UnknownName
from alm.facts import AudioFacts, TokenFacts
from tests.wrappers.checkpoint.checkpoints import Copy, in_shards, refused, without
from tests.wrappers.families import tiny_qwen_audio
from tests.wrappers.families.tiny_qwen_audio import CONTROLS, RATE, VARIANTS, ranks
from wrappers import open_checkpoint
from wrappers.checkpoint.weights.hollow import filled


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_qwen_audio.make(tmp_path_factory.mktemp("qwen_audio"))


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Copy:
    return Copy(folder / "config.json", tmp_path)


def test_the_manifest_states_what_is_heard(folder: Path, tmp_path: Path) -> None:
    made, known = open_checkpoint(folder), len(ranks())
    assert made.roles == {
        **{"mel": "frontend", "qwen_audio": "encoder"},
        **{"projector": "bridge", "decoder": "decoder"},
    }
    assert made.facts.audio == AudioFacts(RATE, "mean", 480, 30 * RATE, "each")
    assert made.facts.dimensions.audio_tokens == 752
    assert made.facts.dimensions.rope_doubles_past == 2048
    ends = (known, known + 2, known + 1)
    assert made.facts.tokens == TokenFacts(eos=ends, penalize_prompt=True)
    assert any("6144" in note for note in made.notes)
    tied, unpooled = (
        tiny_qwen_audio.make(tmp_path / name, **VARIANTS[name]) for name in ("tied", "unpooled")
    )
    few = open_checkpoint(tied).facts
    assert few.audio.window_samples == 8 * RATE and few.dimensions.audio_tokens == 202
    assert open_checkpoint(unpooled).facts.dimensions.rope_doubles_past is None


def test_the_base_model_is_asked_by_tags(tmp_path: Path) -> None:
    made = open_checkpoint(tiny_qwen_audio.make(tmp_path, "raw"))
    facts, tokenizer = made.facts, Tokenizer.from_str(made.tokenizer_json)
    assert facts.tokens.eos == (len(ranks()),) and facts.prompt.turn == "{clips}{}"
    tags = "<|startoftranscript|><|en|><|transcribe|><|en|><|notimestamps|><|wo_itn|>"
    assert facts.prompt.tasks["transcribe"] == tags
    for words in facts.prompt.tasks.values():  # each tag is one token, none is spelled out
        ids = tokenizer.encode(words, add_special_tokens=False).ids
        assert len(ids) == words.count("<|") and min(ids) >= len(ranks()) + CONTROLS


def test_weights_in_shards_are_read_alike(copy: Copy, folder: Path) -> None:
    in_shards(copy.folder)
    want, got = (
        filled(open_checkpoint(path).part("decoder", "ort")).state_dict()
        for path in (folder, copy.folder)
    )
    assert want.keys() == got.keys()
    assert all(torch.equal(want[name], got[name]) for name in want)


def test_a_lora_of_the_authors_names_is_merged(copy: Copy, folder: Path) -> None:
    noise = torch.Generator().manual_seed(1)
    settings = dict(peft_type="LORA", task_type="CAUSAL_LM", r=3, lora_alpha=6)
    settings |= dict(target_modules=["c_attn", "w1", "attn.c_proj"], base_model_name_or_path="")
    tensors = {}
    shapes = {"attn.c_attn": (144, 48), "mlp.w1": (64, 48), "attn.c_proj": (48, 48)}
    for i in range(2):
        for module, (out, wide) in shapes.items():
            at = f"base_model.model.transformer.h.{i}.{module}"
            tensors[f"{at}.lora_A.weight"] = torch.randn(3, wide, generator=noise)
            tensors[f"{at}.lora_B.weight"] = torch.randn(out, 3, generator=noise)
    copy.json("adapter_config.json", **settings)
    save_file(tensors, copy.folder / "adapter_model.safetensors")
    plain, merged = (
        filled(open_checkpoint(path).part("decoder", "ort")).state_dict()
        for path in (folder, copy.folder)
    )
    names = {"attn.c_attn": "self_attn.c_attn", "mlp.w1": "mlp.up_proj"}
    names |= {"attn.c_proj": "self_attn.o_proj"}
    for module, name in names.items():
        at = f"base_model.model.transformer.h.1.{module}"
        delta = 2 * tensors[f"{at}.lora_B.weight"] @ tensors[f"{at}.lora_A.weight"]
        key = f"model.layers.1.{name}.weight"
        assert float((merged[key] - plain[key] - delta).abs().max()) < 1e-5


def changed(copy: Copy, section: str, **values: Any) -> None:
    """Change the config, or its section; None takes a key out."""
    plain = json.loads(copy.config.read_text())
    inner = plain[section] if section else plain
    inner.update(values)
    for name in [name for name, value in values.items() if value is None]:
        del inner[name]
    copy.config.write_text(json.dumps(plain))


def lines(copy: Copy, change: Callable[[list[str]], list[str]]) -> None:
    file = copy.folder / "qwen.tiktoken"
    file.write_text("\n".join(change(file.read_text().splitlines())))


GENERATION, WORDS = "generation_config.json", "tokenizer_config.json"
CASES: dict[str, tuple[tuple[str, ...], Callable[[Copy], Any]]] = {
    "heads that are not the width": (
        ("num_attention_heads 4 of kv_channels 16, which are not the hidden_size 48",),
        lambda c: changed(c, "", kv_channels=16),
    ),
    "heads that are turned in part": (
        ("rotary_pct 0.5; known is 1",),
        lambda c: changed(c, "", rotary_pct=0.5),
    ),
    "no trained length": (("no seq_length",), lambda c: changed(c, "", seq_length=None)),
    "values of other types": (
        ("seq_length 'long'; it must be a whole number", "use_logn_attn 1; it must be true or"),
        lambda c: changed(c, "", seq_length="long", use_logn_attn=1),
    ),
    "half of an odd number": (
        ("intermediate_size 127, which has no half",),
        lambda c: changed(c, "", intermediate_size=127),
    ),
    "a cache of integers": (
        ("use_cache_quantization true",),
        lambda c: changed(c, "", use_cache_quantization=True),
    ),
    "two precisions": (
        ("more than one of bf16, fp16 and fp32",),
        lambda c: changed(c, "", bf16=True),
    ),
    "quantized weights": (
        ("config.json describes quantised weights",),
        lambda c: changed(c, "", quantization_config={"quant_method": "gptq", "bits": 4}),
    ),
    "another spectrogram": (
        ("audio.n_mels 128; known is 80",),
        lambda c: changed(c, "audio", n_mels=128),
    ),
    "no rows around a clip": (
        ("audio.add_audio_bos_eos_token false",),
        lambda c: changed(c, "audio", add_audio_bos_eos_token=False),
    ),
    "rows of another width, and a size left out": (
        ("audio.output_dim 64, and the LLM's rows are 48 wide", "no audio.n_layer"),
        lambda c: changed(c, "audio", output_dim=64, n_layer=None),
    ),
    "heads that do not share the tower's width": (
        ("48 is not divisible by its 5 heads",),
        lambda c: changed(c, "audio", n_head=5),
    ),
    "another token before a clip": (
        ("audio.audio_start_id 5, and with qwen.tiktoken it is",),
        lambda c: changed(c, "audio", audio_start_id=5),
    ),
    "another form of chat": (
        ("chat_format: 'alpaca'; known are chatml and raw",),
        lambda c: c.json(GENERATION, chat_format="alpaca"),
    ),
    "several ends": (
        ("eos_token_id [1, 2]; it must be one token", "stop_words_ids [[1, 2]]"),
        lambda c: c.json(GENERATION, eos_token_id=[1, 2], stop_words_ids=[[1, 2]]),
    ),
    "decoding that is not done": (
        ("penalty_alpha: 0.6, which is not done here",),
        lambda c: c.json(GENERATION, penalty_alpha=0.6),
    ),
    "another way to decode half a character": (
        ("errors: 'strict'; known is `replace`",),
        lambda c: c.json(WORDS, errors="strict"),
    ),
    "tags that mean something else": (
        ("tags around a clip (<|en|> and </audio>) that mean something else",),
        lambda c: c.json(WORDS, audio_start_tag="<|en|>"),
    ),
    "a rank that is missing": (
        ("qwen.tiktoken does not give 307 pieces the ranks from 0 on",),
        lambda c: lines(c, lambda every: every[:280] + every[281:]),
    ),
    "a byte that is no piece": (
        ("qwen.tiktoken has no piece of the byte 65",),
        lambda c: lines(c, lambda every: [*every[:65], "eHl6eHl6 65", *every[66:]]),
    ),
    "no tiktoken file": (
        ("qwen.tiktoken is no tiktoken file",),
        lambda c: lines(c, lambda every: ["<html>", *every]),
    ),
    "weights missing from every piece, in the authors' names": (
        (
            "transformer.audio.blocks.1.mlp.2.bias",
            "transformer.audio.audio_bos_eos_token.weight",
            "transformer.h.0.attn.c_attn.bias",
            "transformer.ln_f.weight",
        ),
        lambda c: c.weights("", without("1.mlp.2.bias", "bos_eos", "0.attn.c_attn.b", "ln_f")),
    ),
    "a weight that no part takes": (
        ("transformer.audio.blocks.0.cross_attn.query.weight",),
        lambda c: c.weights(
            "",
            lambda s: s.update(
                {"transformer.audio.blocks.0.cross_attn.query.weight": torch.ones(3)}
            ),
        ),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_folder_that_cannot_be_followed_is_one_sentence(copy: Copy, case: str) -> None:
    names, change = CASES[case]
    change(copy)
    sentence = refused(copy, BadCheckpoint)
    assert all(name in sentence for name in names), sentence


def test_too_few_rows_for_the_tokens_are_refused(tmp_path: Path) -> None:
    folder = tiny_qwen_audio.make(tmp_path, vocab_size=3000)
    with pytest.raises(BadCheckpoint, match="vocab_size 3000, and the tokenizer has 38"):
        open_checkpoint(folder)


def test_a_missing_vocabulary_is_named(copy: Copy) -> None:
    (copy.folder / "qwen.tiktoken").unlink()
    assert "qwen.tiktoken" in refused(copy, MissingFile)


def test_a_qwen_without_ears_is_no_model_here(copy: Copy) -> None:
    changed(copy, "", audio=None)
    assert "model_type: 'qwen'" in refused(copy, UnknownName)


def test_code_in_a_folder_is_never_run(copy: Copy) -> None:
    for name in ("configuration_qwen", "modeling_qwen", "tokenization_qwen", "audio"):
        (copy.folder / f"{name}.py").write_text("raise SystemExit('this ran')")
    assert open_checkpoint(copy.folder).part("decoder", "ort").role == "decoder"
