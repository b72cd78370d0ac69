"""Tiny random Qwen3-ASR folders, saved as transformers saves the published ones."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import (
    GenerationConfig,
    PreTrainedTokenizerFast,
    Qwen3ASRConfig,
    Qwen3ASRFeatureExtractor,
    Qwen3ASRForConditionalGeneration,
    Qwen3ASRForTokenClassification,
    Qwen3ASRProcessor,
)

from tests.wrappers.checkpoint.checkpoints import Copy, renamed
from tests.wrappers.families.tiny_hf import of_bytes

RATE = 16_000
SPECIALS = (
    *("<|endoftext|>", "<|im_start|>", "<|im_end|>"),
    *("<|audio_start|>", "<|audio_end|>", "<|audio_pad|>"),
)
PLAIN = ("<asr_text>", "<timestamp>")  # tokens of their own that decoding keeps
# All system texts in one turn, then the clips of all user turns, as the published one writes them.
TEMPLATE = (
    "{%- set found = namespace(text='', clips='') -%}"
    "{%- for message in messages -%}"
    "{%- if message.role == 'system' -%}"
    "{%- if message.content is string -%}"
    "{%- set found.text = found.text + message.content -%}"
    "{%- else -%}{%- for part in message.content -%}{%- if part.type == 'text' -%}"
    "{%- set found.text = found.text + part.text -%}{%- endif -%}{%- endfor -%}{%- endif -%}"
    "{%- elif message.role == 'user' and message.content is not string -%}"
    "{%- for part in message.content -%}{%- if part.type == 'audio' -%}"
    "{%- set found.clips = found.clips + '<|audio_start|><|audio_pad|><|audio_end|>' -%}"
    "{%- endif -%}{%- endfor -%}{%- endif -%}{%- endfor -%}"
    "{{- '<|im_start|>system\n' + found.text + '<|im_end|>\n' -}}"
    "{{- '<|im_start|>user\n' + found.clips + '<|im_end|>\n' -}}"
    "{%- if add_generation_prompt or messages[-1].role == 'assistant' -%}"
    "{{- '<|im_start|>assistant\n' -}}{%- endif -%}"
    "{%- if messages[-1].role == 'assistant' -%}"
    "{{- messages[-1].content[0].text -}}{%- endif -%}"
)
# A clip, then each word with two marks behind it.
ALIGN_TEMPLATE = (
    "{%- for message in messages -%}{%- for part in message.content -%}"
    "{%- if part.type == 'audio' -%}{{- '<|audio_start|><|audio_pad|><|audio_end|>' -}}"
    "{%- else -%}{{- part.text + '<timestamp><timestamp>' -}}{%- endif -%}"
    "{%- endfor -%}{%- endfor -%}"
)
MELS = 20
TOWER: dict[str, Any] = dict(
    num_mel_bins=MELS,
    encoder_layers=2,
    encoder_attention_heads=4,
    encoder_ffn_dim=44,
    d_model=36,
    output_dim=48,
    downsample_hidden_size=6,
)
LLM: dict[str, Any] = dict(
    model_type="qwen3",
    vocab_size=300,
    hidden_size=48,
    intermediate_size=60,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=12,
    max_position_embeddings=4096,
)


@dataclass(frozen=True)
class Tiny:
    """A folder, and the model of transformers that was saved in it."""

    folder: Path
    truth: Any

    @property
    def processor(self) -> Any:
        """The folder's processor."""
        return Qwen3ASRProcessor.from_pretrained(self.folder, local_files_only=True)

    def features(self, clip: np.ndarray) -> dict[str, Tensor]:
        """The spectrogram of a clip [samples] and its mask, as the processor makes them."""
        made: Any = self.processor.feature_extractor(
            clip,
            sampling_rate=RATE,
            padding=True,
            truncation=False,
            return_attention_mask=True,
            return_tensors="pt",
        )
        mask = made.attention_mask
        return {"input_features": made.input_features, "input_features_mask": mask}

    @torch.no_grad()
    def heard(self, clip: np.ndarray) -> Tensor:
        """The embeddings [rows, hidden] of a clip alone."""
        return self.truth.get_audio_features(**self.features(clip)).pooler_output

    def asked(self, clips: list[np.ndarray], context: str | None, language: str = "") -> Any:
        """What the processor makes of a request: ids with a placeholder for each row, and sound."""
        audio = [{"type": "audio", "audio": clip} for clip in clips]
        messages: list[Any] = [{"role": "user", "content": audio}]
        if context is not None:
            text = [{"type": "text", "text": context}]
            messages.insert(0, {"role": "system", "content": text})
        begun = f"language {language}<asr_text>" if language else ""
        messages.append({"role": "assistant", "content": [{"type": "text", "text": begun}]})
        return self.processor.apply_chat_template(
            [messages], tokenize=True, return_dict=True, continue_final_message=bool(begun)
        )


def make(folder: Path, tower: dict[str, Any] | None = None, tied: bool = True, **llm: Any) -> Tiny:
    """A Qwen3-ASR; `tower` and `llm` change its sizes."""
    config = _config(tower, llm, tie_word_embeddings=tied)
    torch.manual_seed(0)
    model = Qwen3ASRForConditionalGeneration(config)
    model.generation_config = GenerationConfig(
        eos_token_id=[0, 2], pad_token_id=0, max_new_tokens=8
    )
    loud(model)
    model.save_pretrained(folder)
    mels = (TOWER | (tower or {}))["num_mel_bins"]
    _processor(mels, TEMPLATE).save_pretrained(folder)
    return Tiny(folder, model)


def aligner(
    folder: Path, labels: int = 90, bias: bool = False, step_ms: float = 80, **llm: Any
) -> Tiny:
    """A forced aligner that tells so many times apart; `llm` changes its sizes."""
    config = _config({}, llm, num_labels=labels, token_classification_bias=bias)
    torch.manual_seed(1)
    model = Qwen3ASRForTokenClassification(config)
    loud(model)
    model.save_pretrained(folder)
    _processor(MELS, ALIGN_TEMPLATE, step_ms).save_pretrained(folder)
    return Tiny(folder, model)


def _config(tower: dict[str, Any] | None, llm: dict[str, Any], **more: Any) -> Qwen3ASRConfig:
    return Qwen3ASRConfig(
        audio_config={"model_type": "qwen3_asr_encoder"} | TOWER | (tower or {}),
        text_config=LLM | llm,
        audio_token_id=SPECIALS.index("<|audio_pad|>"),
        timestamp_token_id=len(SPECIALS) + PLAIN.index("<timestamp>"),
        pad_token_id=0,
        eos_token_id=[0, 2],
        **more,
    )


def _processor(mels: int, template: str, step_ms: float = 80) -> Qwen3ASRProcessor:
    extractor = Qwen3ASRFeatureExtractor(feature_size=mels)
    return Qwen3ASRProcessor(extractor, tokenizer(), template, timestamp_segment_time=step_ms)


def alike(got: Tensor, want: Tensor) -> None:
    """As many rows, and no number further than 1e-4 of the largest."""
    assert got.shape == want.shape
    assert float((got - want).abs().max()) < 1e-4 * max(1.0, float(want.abs().max()))


def loud(model: Any) -> None:
    """Weights large enough that every clip is answered otherwise."""
    model.eval().requires_grad_(False)
    for name, weight in model.named_parameters():
        if weight.ndim == 1 and name.endswith("weight"):  # of a norm
            weight.normal_(1, 0.3)
        else:
            weight.normal_(0, 2 * weight[0].numel() ** -0.5)


def tokenizer() -> PreTrainedTokenizerFast:
    """Bytes and the tokens of a prompt."""
    return PreTrainedTokenizerFast(
        tokenizer_object=of_bytes(SPECIALS, PLAIN),
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        extra_special_tokens={
            "audio_token": "<|audio_pad|>",
            "audio_bos_token": "<|audio_start|>",
            "audio_eos_token": "<|audio_end|>",
        },
    )


def authors(copy: Copy, kind: str = "qwen3_asr_thinker", **more: Any) -> None:
    """The folder as the authors' own package has it: other names, one section."""
    plain = json.loads(copy.config.read_text())
    audio = {k: plain["audio_config"][k] for k in (*TOWER, "n_window")}
    text = {k: v for k, v in plain["text_config"].items() if k in LLM}
    text |= {"model_type": "qwen3_asr_text", "tie_word_embeddings": True, "rope_theta": 1e4}
    text["rope_scaling"] = {"mrope_section": [2, 2, 2], "type": "default", "interleaved": True}
    thinker = {
        "model_type": kind,
        "audio_config": audio | {"n_window_infer": 800},
        "text_config": text,
        "audio_token_id": plain["audio_token_id"],
        "timestamp_token_id": plain["timestamp_token_id"],
        **more,
    }
    copy.config.write_text(json.dumps({"model_type": "qwen3_asr", "thinker_config": thinker}))
    for name, other in (
        ("model.audio_tower.", "thinker.audio_tower."),
        ("audio_tower.", "thinker.audio_tower."),
        ("model.multi_modal_projector.linear_", "thinker.audio_tower.proj"),
        ("multi_modal_projector.linear_", "thinker.audio_tower.proj"),
        ("model.language_model.", "thinker.model."),
        ("language_model.model.", "thinker.model."),
        ("language_model.", "thinker.model."),
    ):
        copy.weights("", renamed(lambda key, a=name, b=other: _moved(key, a, b)))


def _moved(key: str, name: str, other: str) -> str:
    return other + key.removeprefix(name) if key.startswith(name) else key
