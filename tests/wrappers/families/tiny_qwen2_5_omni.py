"""Tiny random Qwen2.5-Omni folders: the thinker's alone, and the whole model's."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import torch
from torch import Tensor
from transformers import (
    GenerationConfig,
    PreTrainedTokenizerFast,
    Qwen2_5OmniConfig,
    Qwen2_5OmniForConditionalGeneration,
    Qwen2_5OmniThinkerConfig,
    Qwen2_5OmniThinkerForConditionalGeneration,
    WhisperFeatureExtractor,
)

from tests.wrappers.families.tiny_hf import of_bytes
from tests.wrappers.families.tiny_qwen3_asr import loud

RATE = 16_000
EOS = [0, 2]
TOKENS = (
    *("<|endoftext|>", "<|im_start|>", "<|im_end|>"),
    *("<|AUDIO|>", "<|audio_bos|>", "<|audio_eos|>"),
    *("<|IMAGE|>", "<|VIDEO|>", "<|vision_bos|>", "<|vision_eos|>"),
)
AUDIO = TOKENS.index("<|AUDIO|>")
# As the published one writes a conversation.
TEMPLATE = (
    "{% set audio_count = namespace(value=0) %}{% set image_count = namespace(value=0) %}"
    "{% set video_count = namespace(value=0) %}{% for message in messages %}"
    "{% if loop.first and message['role'] != 'system' %}"
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n{% endif %}"
    "<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}<|im_end|>\n"
    "{% else %}{% for content in message['content'] %}"
    "{% if content['type'] == 'image' or 'image' in content or 'image_url' in content %}"
    "{% set image_count.value = image_count.value + 1 %}"
    "{% if add_vision_id %}Picture {{ image_count.value }}: {% endif %}"
    "<|vision_bos|><|IMAGE|><|vision_eos|>"
    "{% elif content['type'] == 'audio' or 'audio' in content or 'audio_url' in content %}"
    "{% set audio_count.value = audio_count.value + 1 %}"
    "{% if add_audio_id %}Audio {{ audio_count.value }}: {% endif %}"
    "<|audio_bos|><|AUDIO|><|audio_eos|>"
    "{% elif content['type'] == 'video' or 'video' in content %}"
    "{% set video_count.value = video_count.value + 1 %}"
    "{% if add_vision_id %}Video {{ video_count.value }}: {% endif %}"
    "<|vision_bos|><|VIDEO|><|vision_eos|>"
    "{% elif 'text' in content %}{{ content['text'] }}{% endif %}{% endfor %}<|im_end|>\n"
    "{% endif %}{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TOWER: dict[str, Any] = dict(
    num_mel_bins=20,
    encoder_layers=2,
    encoder_attention_heads=2,
    encoder_ffn_dim=44,
    d_model=28,
    output_dim=48,
)
VISION: dict[str, Any] = dict(
    depth=1,
    hidden_size=16,
    intermediate_size=20,
    num_heads=2,
    out_hidden_size=48,
    patch_size=4,
    fullatt_block_indexes=[0],
    window_size=16,
)
LLM: dict[str, Any] = dict(
    vocab_size=300,
    hidden_size=48,
    intermediate_size=60,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=8192,
    rope_parameters=dict(rope_type="default", rope_theta=1e4, mrope_section=[2, 2, 2]),
)
# What of the whole model is no thinker, as small as its classes are built.
TALKER: dict[str, Any] = dict(
    vocab_size=300,
    embedding_size=48,
    hidden_size=16,
    intermediate_size=20,
    num_hidden_layers=1,
    num_attention_heads=2,
    num_key_value_heads=1,
    head_dim=8,
    rope_parameters=dict(rope_type="default", rope_theta=1e4, mrope_section=[1, 1, 2]),
)
TOKEN2WAV: dict[str, Any] = dict(
    dit_config=dict(
        **dict(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, head_dim=8),
        **dict(emb_dim=8, num_embeds=20, mel_dim=8, enc_emb_dim=8, enc_dim=8),
        **dict(enc_channels=[8, 8, 8, 8, 24], enc_attention_channels=4, enc_se_channels=4),
        **dict(enc_res2net_scale=2, look_ahead_layers=[0], look_backward_layers=[0]),
    ),
    bigvgan_config=dict(mel_dim=8, upsample_initial_channel=64),
)
GREEDY: dict[str, Any] = dict(max_new_tokens=32, do_sample=False, num_beams=1)
ANSWER = "ANSWER"  # in the place of an answer's tokens
Said = tuple[str, list[np.ndarray], list[int]]  # a user's words, the clips before them, the answer


@dataclass(frozen=True)
class Tiny:
    """A folder, and the thinker of transformers that was saved in it."""

    folder: Path
    truth: Any

    @cached_property
    def extractor(self) -> Any:
        """The folder's feature extractor."""
        return WhisperFeatureExtractor.from_pretrained(self.folder)

    def features(self, clips: list[np.ndarray]) -> dict[str, Tensor]:
        """What transformers' processor gives the model of clips: see its `_process_audio`."""
        made: Any = self.extractor(
            clips,
            sampling_rate=RATE,
            padding="max_length",
            return_attention_mask=True,
            return_tensors="pt",
        )
        return {
            "input_features": made.input_features,
            "feature_attention_mask": made.attention_mask,
        }

    @torch.no_grad()
    def heard(self, clip: np.ndarray) -> Tensor:
        """The embeddings [rows, hidden] of a clip alone."""
        return self.truth.get_audio_features(**self.features([clip])).last_hidden_state

    def asked(self, turns: Sequence[Said]) -> dict[str, Any]:
        """Ids of the turns, a token for each row of a clip, and all clips."""
        tokenizer = PreTrainedTokenizerFast.from_pretrained(self.folder)
        messages: list[dict[str, Any]] = []
        for words, clips, _ in turns:
            audio: list[dict[str, str]] = [{"type": "audio", "audio": "x"} for _ in clips]
            messages.append({"role": "user", "content": [*audio, {"type": "text", "text": words}]})
            messages.append({"role": "assistant", "content": ANSWER})
        template = jinja2.Template(TEMPLATE, keep_trailing_newline=True)
        text = template.render(messages=messages[:-1], add_generation_prompt=True)
        heard = (
            self.features(every) if (every := [c for _, clips, _ in turns for c in clips]) else {}
        )
        counts = []
        if heard:
            frames = heard["feature_attention_mask"].sum(-1)
            tower = self.truth.model.audio_tower
            counts = tower._get_feat_extract_output_lengths(frames)[1].tolist()
        ids: list[int] = []
        for i, piece in enumerate(text.split(ANSWER)):
            for token in tokenizer.encode(piece, add_special_tokens=False):
                ids += [token] * (counts.pop(0) if token == AUDIO else 1)
            ids += [token for token in turns[i][2] if token not in EOS]
        return {"input_ids": torch.tensor([ids]), **heard}

    def answer(self, *turns: Said) -> list[int]:
        """Greedy tokens to the last of the turns, as `generate` gives them."""
        asked = self.asked(turns)
        ids = asked["input_ids"]
        settings = dict(eos_token_id=EOS, pad_token_id=0, attention_mask=torch.ones_like(ids))
        self.truth.model.rope_deltas = None
        made = self.truth.generate(**asked, **GREEDY, **settings)
        return made[0, ids.shape[1] :].tolist()


def make(
    folder: Path,
    tower: dict[str, Any] | None = None,
    tied: bool = False,
    seconds: int = 100,
    **llm: Any,
) -> Tiny:
    """A thinker; `tower` and `llm` change its sizes, `seconds` the longest clip."""
    config = Qwen2_5OmniThinkerConfig(**_thinker(tower, tied, llm))
    torch.manual_seed(0)
    model = Qwen2_5OmniThinkerForConditionalGeneration(config)
    _loud(model)
    model.save_pretrained(folder)
    _beside(folder, (TOWER | (tower or {}))["num_mel_bins"], seconds)
    return Tiny(folder, model)


def whole(folder: Path, seconds: int = 100) -> Tiny:
    """The whole model, with what speaks."""
    config = Qwen2_5OmniConfig(
        thinker_config=_thinker(None, False, {}),
        talker_config=TALKER,
        token2wav_config=TOKEN2WAV,
    )
    torch.manual_seed(0)
    model = Qwen2_5OmniForConditionalGeneration(config)
    _loud(model.thinker)
    model.save_pretrained(folder)
    _beside(folder, TOWER["num_mel_bins"], seconds)
    return Tiny(folder, model.thinker)


def _thinker(tower: dict[str, Any] | None, tied: bool, llm: dict[str, Any]) -> dict[str, Any]:
    width = (LLM | llm)["hidden_size"]
    return dict(
        audio_config=TOWER | {"output_dim": width} | (tower or {}),
        vision_config=VISION | {"out_hidden_size": width},
        text_config=LLM | llm | {"tie_word_embeddings": tied},
        audio_token_index=AUDIO,
        image_token_index=TOKENS.index("<|IMAGE|>"),
        video_token_index=TOKENS.index("<|VIDEO|>"),
        audio_start_token_id=TOKENS.index("<|audio_bos|>"),
        audio_end_token_id=TOKENS.index("<|audio_eos|>"),
        vision_start_token_id=TOKENS.index("<|vision_bos|>"),
        tie_word_embeddings=tied,
        eos_token_id=EOS,
        pad_token_id=0,
    )


def _loud(model: Any) -> None:
    model.generation_config = GenerationConfig(eos_token_id=EOS, pad_token_id=0, max_new_tokens=8)
    loud(model)
    # No answer holds the token for audio, which nobody could give back in a later turn.
    model.get_output_embeddings().weight[AUDIO] = 0


def _beside(folder: Path, mels: int, seconds: int) -> None:
    WhisperFeatureExtractor(
        feature_size=mels, chunk_length=seconds, return_attention_mask=True
    ).save_pretrained(folder)
    PreTrainedTokenizerFast(
        tokenizer_object=of_bytes(TOKENS),
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        extra_special_tokens={"audio_token": "<|AUDIO|>"},
    ).save_pretrained(folder)
    (folder / "chat_template.json").write_text(json.dumps({"chat_template": TEMPLATE}))
