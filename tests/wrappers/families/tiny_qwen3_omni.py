"""Tiny random Qwen3-Omni folders: the thinker's alone, and the whole model's."""

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
    Qwen3OmniMoeConfig,
    Qwen3OmniMoeForConditionalGeneration,
    Qwen3OmniMoeThinkerConfig,
    Qwen3OmniMoeThinkerForConditionalGeneration,
    WhisperFeatureExtractor,
)
from transformers.models.qwen3_omni_moe.processing_qwen3_omni_moe import (
    _get_feat_extract_output_lengths as rows_of,  # pyright: ignore[reportPrivateUsage]
)

from tests.wrappers.families.tiny_hf import of_bytes
from tests.wrappers.families.tiny_qwen3_asr import loud

RATE = 16_000
EOS = [0, 2]
SPECIALS = (
    *("<|endoftext|>", "<|im_start|>", "<|im_end|>"),
    *("<|audio_start|>", "<|audio_end|>", "<|audio_pad|>"),
    *("<|image_pad|>", "<|video_pad|>", "<|vision_start|>", "<|vision_end|>"),
)
PLAIN = ("<think>", "</think>")  # tokens of their own that decoding keeps
AUDIO, CLOSED = SPECIALS.index("<|audio_pad|>"), len(SPECIALS) + 1
# As a Qwen3's writes a conversation: no system turn of its own, and of an answer with a thought
# only what is behind that.
TEMPLATE = (
    "{%- for message in messages -%}"
    "{%- set found = namespace(text='') -%}"
    "{%- if message.content is string -%}{%- set found.text = message.content -%}"
    "{%- else -%}{%- for part in message.content -%}"
    "{%- if part.type == 'audio' or 'audio' in part or 'audio_url' in part -%}"
    "{%- set found.text = found.text + '<|audio_start|><|audio_pad|><|audio_end|>' -%}"
    "{%- elif part.type == 'image' or 'image' in part -%}"
    "{%- set found.text = found.text + '<|vision_start|><|image_pad|><|vision_end|>' -%}"
    "{%- elif 'text' in part -%}{%- set found.text = found.text + part.text -%}{%- endif -%}"
    "{%- endfor -%}{%- endif -%}"
    "{%- set content = found.text -%}"
    "{%- if message.role == 'assistant' and '</think>' in content -%}"
    "{%- set content = content.split('</think>')[-1].lstrip('\n') -%}{%- endif -%}"
    "{{- '<|im_start|>' + message.role + '\n' + content + '<|im_end|>\n' -}}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\n' -}}"
    "{%- if enable_thinking is defined and enable_thinking is false -%}"
    "{{- '<think>\n\n</think>\n\n' -}}{%- endif -%}{%- endif -%}"
)
BEGUN = "<think>\n"  # with which the template of a Thinking model begins an answer
TOWER: dict[str, Any] = dict(
    num_mel_bins=20,
    encoder_layers=2,
    encoder_attention_heads=2,
    encoder_ffn_dim=44,
    d_model=28,
    downsample_hidden_size=6,
)
VISION: dict[str, Any] = dict(
    depth=2,
    hidden_size=16,
    intermediate_size=20,
    num_heads=2,
    patch_size=4,
    num_position_embeddings=16,
    deepstack_visual_indexes=[0],
)
LLM: dict[str, Any] = dict(
    vocab_size=300,
    hidden_size=48,
    intermediate_size=60,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=12,
    max_position_embeddings=8192,
    moe_intermediate_size=20,
    num_experts=5,
    num_experts_per_tok=2,
    rope_parameters=dict(rope_type="default", rope_theta=1e4, mrope_section=[2, 2, 2]),
)
# What of the whole model is no thinker, as small as its classes are built.
SPOKEN: dict[str, Any] = dict(
    vocab_size=40,
    hidden_size=16,
    intermediate_size=20,
    num_hidden_layers=1,
    num_attention_heads=2,
    num_key_value_heads=1,
    head_dim=8,
)
TALKER: dict[str, Any] = dict(
    thinker_hidden_size=48,
    spatial_merge_size=2,
    num_code_groups=3,
    text_config=dict(
        **SPOKEN,
        moe_intermediate_size=8,
        shared_expert_intermediate_size=8,
        num_experts=3,
        num_experts_per_tok=1,
        rope_parameters=dict(rope_type="default", rope_theta=1e4, mrope_section=[1, 1, 2]),
    ),
    code_predictor_config=dict(**SPOKEN, num_code_groups=3),
)
CODE2WAV: dict[str, Any] = dict(
    codebook_size=20,
    hidden_size=16,
    intermediate_size=20,
    num_hidden_layers=1,
    num_attention_heads=2,
    num_key_value_heads=2,
    num_quantizers=3,
    upsample_rates=[2, 2],
    upsampling_ratios=[2],
    decoder_dim=16,
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

    @cached_property
    def tokenizer(self) -> Any:
        """The folder's tokenizer."""
        return PreTrainedTokenizerFast.from_pretrained(self.folder)

    def features(self, clips: list[np.ndarray]) -> dict[str, Tensor]:
        """What transformers' processor gives the model of clips: see its `audio_kwargs`."""
        made: Any = self.extractor(
            clips,
            sampling_rate=RATE,
            padding=True,
            truncation=False,
            return_attention_mask=True,
            return_tensors="pt",
        )
        return {
            "input_features": made.input_features,
            "feature_attention_mask": made.attention_mask,
        }

    def apart(self, clips: list[np.ndarray]) -> dict[str, Tensor]:
        """The same where each clip's spectrogram is that of the clip alone."""
        alone = [self.features([clip]) for clip in clips]
        most = max(made["input_features"].shape[2] for made in alone)
        return {
            name: torch.cat(
                [torch.nn.functional.pad(m[name], (0, most - m[name].shape[-1])) for m in alone]
            )
            for name in alone[0]
        }

    @torch.no_grad()
    def heard(self, clip: np.ndarray) -> Tensor:
        """The embeddings [rows, hidden] of a clip alone."""
        return self.truth.get_audio_features(**self.features([clip])).last_hidden_state

    def text(self, turns: Sequence[Said], begun: str = "") -> str:
        """The turns as the template writes them, an answer as its text or as ANSWER."""
        messages: list[dict[str, Any]] = []
        for words, clips, _ in turns:
            audio: list[dict[str, str]] = [{"type": "audio", "audio": "x"} for _ in clips]
            messages.append({"role": "user", "content": [*audio, {"type": "text", "text": words}]})
            messages.append({"role": "assistant", "content": ANSWER})
        template = jinja2.Template(TEMPLATE, keep_trailing_newline=True)
        return template.render(messages=messages[:-1], add_generation_prompt=True) + begun

    def asked(self, turns: Sequence[Said]) -> dict[str, Any]:
        """Ids of the turns, a token for each row of a clip, and all clips."""
        every = [clip for _, clips, _ in turns for clip in clips]
        heard = self.apart(every) if every else {}
        ids: list[int] = []
        for i, piece in enumerate(self.text(turns).split(ANSWER)):
            ids += self.tokenizer.encode(piece, add_special_tokens=False)
            ids += [token for token in turns[i][2] if token not in EOS]
        return {"input_ids": torch.tensor([self.spread(ids, heard)]), **heard}

    def spread(self, ids: list[int], heard: dict[str, Tensor]) -> list[int]:
        """The ids with a token for each row of a clip in the place of one for each clip."""
        half = self.truth.config.audio_config.n_window
        frames = heard["feature_attention_mask"].sum(-1) if heard else torch.zeros(0)
        counts = iter(rows_of(frames, half).int().tolist())
        return [i for token in ids for i in [token] * (next(counts) if token == AUDIO else 1)]

    def generated(self, asked: dict[str, Any]) -> list[int]:
        """Greedy tokens, as `generate` gives them."""
        ids = asked["input_ids"]
        settings = dict(eos_token_id=EOS, pad_token_id=0, attention_mask=torch.ones_like(ids))
        made = self.truth.generate(**asked, **GREEDY, **settings)
        return made[0, ids.shape[1] :].tolist()

    def answer(self, *turns: Said) -> list[int]:
        """Greedy tokens to the last of the turns, as `generate` gives them."""
        return self.generated(self.asked(turns))


def make(folder: Path, tower: dict[str, Any] | None = None, tied: bool = False, **llm: Any) -> Tiny:
    """A thinker; `tower` and `llm` change its sizes."""
    config = Qwen3OmniMoeThinkerConfig(**_thinker(tower, tied, llm))
    torch.manual_seed(0)
    model = Qwen3OmniMoeThinkerForConditionalGeneration(config)
    _loud(model)
    model.save_pretrained(folder)
    _beside(folder, (TOWER | (tower or {}))["num_mel_bins"])
    return Tiny(folder, model)


def whole(folder: Path) -> Tiny:
    """The whole model, with what speaks."""
    config = Qwen3OmniMoeConfig(
        thinker_config=_thinker(None, False, {}),
        talker_config=TALKER,
        code2wav_config=CODE2WAV,
    )
    torch.manual_seed(0)
    model = Qwen3OmniMoeForConditionalGeneration(config)
    _loud(model.thinker)
    model.save_pretrained(folder)
    _beside(folder, TOWER["num_mel_bins"])
    return Tiny(folder, model.thinker)


def _thinker(tower: dict[str, Any] | None, tied: bool, llm: dict[str, Any]) -> dict[str, Any]:
    width = (LLM | llm)["hidden_size"]
    return dict(
        audio_config=TOWER | {"output_dim": width} | (tower or {}),
        vision_config=VISION | {"out_hidden_size": width},
        text_config=LLM | llm,
        audio_token_id=AUDIO,
        image_token_id=SPECIALS.index("<|image_pad|>"),
        video_token_id=SPECIALS.index("<|video_pad|>"),
        audio_start_token_id=SPECIALS.index("<|audio_start|>"),
        vision_start_token_id=SPECIALS.index("<|vision_start|>"),
        tie_word_embeddings=tied,
    )


def _loud(model: Any) -> None:
    model.generation_config = GenerationConfig(eos_token_id=EOS, pad_token_id=0, max_new_tokens=8)
    loud(model)
    # No answer holds the token for audio, which nobody could give back in a later turn.
    model.get_output_embeddings().weight[AUDIO] = 0


def _beside(folder: Path, mels: int) -> None:
    WhisperFeatureExtractor(feature_size=mels, return_attention_mask=True).save_pretrained(folder)
    PreTrainedTokenizerFast(
        tokenizer_object=of_bytes(SPECIALS, PLAIN),
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        extra_special_tokens={"audio_token": "<|audio_pad|>"},
    ).save_pretrained(folder)
    (folder / "chat_template.json").write_text(json.dumps({"chat_template": TEMPLATE}))
