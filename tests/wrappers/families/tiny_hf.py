"""Tiny random Qwen2-Audio and Voxtral folders, as their published ones are laid out."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import AddedToken, Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from transformers import (
    GenerationConfig,
    Qwen2AudioConfig,
    Qwen2AudioForConditionalGeneration,
    VoxtralConfig,
    VoxtralForConditionalGeneration,
    WhisperFeatureExtractor,
)

RATE = 16_000
MELS = 80
CHATML_TOKENS = (
    *("<|endoftext|>", "<|im_start|>", "<|im_end|>"),
    *("<|AUDIO|>", "<|audio_bos|>", "<|audio_eos|>"),
)
# Ids as Voxtral has them, which lie between those of other Mistrals.
TEKKEN_TOKENS = {
    **{0: "<unk>", 1: "<s>", 2: "</s>", 3: "[INST]", 4: "[/INST]", 11: "<pad>"},
    **{24: "[AUDIO]", 25: "[BEGIN_AUDIO]", 34: "[TRANSCRIBE]"},
}
TEKKEN_SPECIALS = 40
PATTERN = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
PIECES = ("th", "he", "the", " t", " the", "in", "ing", "  ", "ö", "la", "lang", "an", "ng", "语")

# The template of the published folder, as of its chat_template.json.
TEMPLATE = (
    "{% set audio_count = namespace(value=0) %}{% for message in messages %}"
    "{% if loop.first and message['role'] != 'system' %}"
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n{% endif %}"
    "<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}<|im_end|>\n"
    "{% else %}{% for content in message['content'] %}"
    "{% if 'audio' in content or 'audio_url' in content or message['type'] == 'audio' %}"
    "{% set audio_count.value = audio_count.value + 1 %}"
    "Audio {{ audio_count.value }}: <|audio_bos|><|AUDIO|><|audio_eos|>\n"
    "{% elif 'text' in content %}{{ content['text'] }}{% endif %}{% endfor %}<|im_end|>\n"
    "{% endif %}{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

LLM: dict[str, Any] = dict(
    vocab_size=300,
    intermediate_size=64,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=4096,
)


@dataclass(frozen=True)
class Tiny:
    """A folder, and the model of transformers that was saved in it."""

    folder: Path
    truth: Any

    @property
    def extractor(self) -> WhisperFeatureExtractor:
        """The feature extractor of the folder."""
        return WhisperFeatureExtractor.from_pretrained(self.folder)


def qwen2_audio(folder: Path, seconds: int = 30, **llm: Any) -> Tiny:
    """A Qwen2-Audio whose window is `seconds` long; `llm` changes its text config."""
    tower = dict(d_model=32, encoder_layers=2, encoder_attention_heads=4, encoder_ffn_dim=48)
    config = Qwen2AudioConfig(
        audio_config=dict(
            tower,
            model_type="qwen2_audio_encoder",
            num_mel_bins=MELS,
            max_source_positions=50 * seconds,
        ),
        text_config=LLM | dict(model_type="qwen2", hidden_size=48) | llm,
        audio_token_index=CHATML_TOKENS.index("<|AUDIO|>"),
    )
    torch.manual_seed(0)
    model = Qwen2AudioForConditionalGeneration(config)
    model.generation_config = GenerationConfig(
        eos_token_id=[0, 2], pad_token_id=0, max_new_tokens=8, repetition_penalty=1.1
    )
    _save(model, folder, seconds)
    chatml().save(str(folder / "tokenizer.json"))
    said = {"eos_token": "<|im_end|>", "tokenizer_class": "Qwen2Tokenizer"}
    (folder / "tokenizer_config.json").write_text(json.dumps(said))
    (folder / "chat_template.json").write_text(json.dumps({"chat_template": TEMPLATE}))
    return Tiny(folder, model)


def voxtral(folder: Path, seconds: int = 30, **llm: Any) -> Tiny:
    """A Voxtral whose window is `seconds` long; `llm` changes its text config."""
    config = VoxtralConfig(
        audio_config=dict(
            model_type="voxtral_encoder",
            hidden_size=32,
            intermediate_size=128,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_mel_bins=MELS,
            max_source_positions=50 * seconds,
        ),
        text_config=LLM | dict(model_type="llama", hidden_size=48, head_dim=12) | llm,
        audio_token_id=24,
    )
    torch.manual_seed(0)
    model = VoxtralForConditionalGeneration(config)
    model.generation_config = GenerationConfig(
        bos_token_id=1, eos_token_id=2, pad_token_id=11, max_new_tokens=8
    )
    _save(model, folder, seconds)
    (folder / "tekken.json").write_text(json.dumps(tekken()))
    return Tiny(folder, model)


def _save(model: Any, folder: Path, seconds: int) -> None:
    """Weights large enough that every clip is answered otherwise, and the extractor's settings."""
    model.eval().requires_grad_(False)
    for name, weight in model.named_parameters():
        if weight.ndim == 1 and name.endswith("weight"):  # of a norm
            weight.normal_(1, 0.3)
        else:
            weight.normal_(0, 2 * weight.shape[-1] ** -0.5)
    model.save_pretrained(folder)
    WhisperFeatureExtractor(feature_size=MELS, chunk_length=seconds).save_pretrained(folder)


def chatml() -> Tokenizer:
    """Bytes and the special tokens of Qwen2-Audio."""
    return of_bytes(CHATML_TOKENS)


def of_bytes(specials: tuple[str, ...], plain: tuple[str, ...] = ()) -> Tokenizer:
    """Special tokens, plain ones that decoding keeps, and all bytes, numbered in this order."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    made = Tokenizer(BPE({text: i for i, text in enumerate((*specials, *plain, *alphabet))}, []))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # pyright: ignore
    made.decoder = decoders.ByteLevel()  # pyright: ignore
    made.add_special_tokens([AddedToken(text, normalized=False) for text in specials])
    made.add_tokens([AddedToken(text, normalized=False) for text in plain])
    return made


def tekken() -> dict[str, Any]:
    """A tekken.json of 300 entries: 40 special tokens, the bytes, some pieces; more to spare."""
    pieces = [*(bytes([i]) for i in range(256)), *(text.encode() for text in PIECES)]
    return {
        "config": {
            "pattern": PATTERN,
            "num_vocab_tokens": len(pieces),
            "default_vocab_size": 300,
            "default_num_special_tokens": TEKKEN_SPECIALS,
            "version": "v7",
        },
        "vocab": [
            {"rank": rank, "token_bytes": base64.b64encode(piece).decode(), "token_str": None}
            for rank, piece in enumerate(pieces)
        ],
        "special_tokens": [
            {
                "rank": rank,
                "token_str": TEKKEN_TOKENS.get(rank, f"<SPECIAL_{rank}>"),
                "is_control": True,
            }
            for rank in range(35)
        ],
    }


def noise(samples: int, seed: int = 0) -> np.ndarray:
    """A clip [samples] of noise that grows louder."""
    made = np.random.default_rng(seed).standard_normal(samples) * np.linspace(0.01, 0.2, samples)
    return made.astype(np.float32)


def batch(clips: list[np.ndarray]) -> tuple[torch.Tensor, torch.Tensor]:
    """pcm [batch, longest] and pcm_lengths [batch] of clips [samples]."""
    pcm = np.zeros((len(clips), max(map(len, clips))), np.float32)
    for row, clip in zip(pcm, clips, strict=True):
        row[: len(clip)] = clip
    return torch.from_numpy(pcm), torch.tensor([len(clip) for clip in clips])
