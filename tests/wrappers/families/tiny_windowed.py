"""Tiny random GLM-ASR and Audio Flamingo 3 folders, saved as transformers saves published ones."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import (
    AudioFlamingo3Config,
    AudioFlamingo3ForConditionalGeneration,
    AudioFlamingo3Processor,
    AutoProcessor,
    GenerationConfig,
    GlmAsrConfig,
    GlmAsrForConditionalGeneration,
    GlmAsrProcessor,
    PreTrainedTokenizerFast,
    WhisperFeatureExtractor,
)

from tests.wrappers.checkpoint.checkpoints import Copy
from tests.wrappers.families.tiny_hf import of_bytes
from tests.wrappers.families.tiny_qwen3_asr import loud

RATE = 16_000
EOS = [0, 2]
GLM_TOKENS = (
    *("<|endoftext|>", "<|system|>", "<|user|>", "<|assistant|>"),
    *("<|begin_of_audio|>", "<|end_of_audio|>", "<|pad|>"),
)
QWEN_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<sound>")
# As the published one writes a conversation: what is said of a clip is a turn of its own.
GLM_TEMPLATE = """\
{%- macro said(content) -%}
{%- if content is string -%}
{{- content -}}
{%- else -%}
{%- for part in content -%}
{%- if part.type == 'text' -%}
{{- part.text -}}
{%- elif part.type == 'audio' or 'audio' in part -%}
<|begin_of_audio|><|pad|><|end_of_audio|><|user|>
{% endif -%}
{%- endfor -%}
{%- endif -%}
{%- endmacro -%}
{%- for message in messages -%}
<|{{ message.role }}|>
{{ said(message.content) | trim }}
{%- endfor -%}
{%- if add_generation_prompt -%}
<|assistant|>
{% endif -%}"""
# As the published one writes it: a message's clip, once, and then all of its words.
QWEN_TEMPLATE = """\
{%- if messages[0].role != 'system' -%}
{{- '<|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n' -}}
{%- endif -%}
{%- for message in messages if message.content is not none -%}
{{- '<|im_start|>' + message.role + '\\n' -}}
{%- if message.content is string -%}
{{- message.content -}}
{%- else -%}
{%- set of = namespace(clip='', text='') -%}
{%- for part in message.content -%}
{%- if part.type == 'audio' or 'audio' in part -%}
{%- set of.clip = '<sound>' -%}
{%- elif part.type == 'text' or 'text' in part -%}
{%- set of.text = of.text + part.text -%}
{%- endif -%}
{%- endfor -%}
{{- of.clip + of.text -}}
{%- endif -%}
{{- '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{- '<|im_start|>assistant\\n' -}}
{%- endif -%}"""
TOWER: dict[str, Any] = dict(
    hidden_size=28,
    intermediate_size=112,
    num_hidden_layers=2,
    num_attention_heads=2,
    num_mel_bins=20,
)
LLM: dict[str, Any] = dict(
    model_type="llama",
    vocab_size=300,
    hidden_size=36,
    intermediate_size=60,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=10,
    max_position_embeddings=4096,
    eos_token_id=EOS,
)
GREEDY: dict[str, Any] = dict(max_new_tokens=32, do_sample=False, num_beams=1)
ANSWER = "ANSWER"  # in the place of an answer's tokens
Said = tuple[str, list[np.ndarray], list[int]]  # a user's words, the clips before them, the answer


@dataclass(frozen=True)
class Tiny:
    """A folder, and the model of transformers that was saved in it."""

    folder: Path
    truth: Any

    @property
    def processor(self) -> Any:
        """The folder's processor."""
        return AutoProcessor.from_pretrained(self.folder, local_files_only=True)

    def features(self, clip: np.ndarray) -> dict[str, Tensor]:
        """The spectrogram of a clip's windows and its mask, as the processor makes them."""
        processor = self.processor
        made = processor(text=[processor.audio_token], audio=[clip], return_tensors="pt")
        text = ("input_ids", "attention_mask")
        return {name: tensor for name, tensor in made.items() if name not in text}

    @torch.no_grad()
    def heard(self, clip: np.ndarray) -> Tensor:
        """The embeddings [rows, hidden] of a clip alone."""
        return self.truth.get_audio_features(**self.features(clip)).pooler_output

    def asked(self, turns: Sequence[Said]) -> dict[str, Any]:
        """What the processor makes of turns, and `input_ids` with the answers that were given."""
        messages: list[Any] = []
        for words, clips, _ in turns:
            audio = [{"type": "audio", "audio": clip} for clip in clips]
            content = [*audio, {"type": "text", "text": words}]
            messages.append({"role": "user", "content": content})
            messages.append({"role": "assistant", "content": [{"type": "text", "text": ANSWER}]})
        processor = self.processor
        made = processor.apply_chat_template(
            [messages[:-1]],
            tokenize=True,
            return_dict=True,
            add_generation_prompt=True,
            return_tensors="pt",
        )
        ids = made.pop("input_ids")[0].tolist()
        made.pop("attention_mask")
        mark = processor.tokenizer.encode(ANSWER, add_special_tokens=False)
        for _, _, answer in turns[:-1]:
            at = next(i for i in range(len(ids)) if ids[i : i + len(mark)] == mark)
            ids[at : at + len(mark)] = [token for token in answer if token not in EOS]
        return {"input_ids": torch.tensor([ids]), **made}

    def answer(self, *turns: Said) -> list[int]:
        """Greedy tokens to the last of the turns, as `generate` gives them."""
        asked = self.asked(turns)
        ids = asked["input_ids"]
        settings = dict(eos_token_id=EOS, pad_token_id=0, attention_mask=torch.ones_like(ids))
        made = self.truth.generate(**asked, **GREEDY, **settings)
        return made[0, ids.shape[1] :].tolist()


def glmasr(
    folder: Path,
    tower: dict[str, Any] | None = None,
    tied: bool = True,
    seconds: int = 30,
    longest: int = 655,
    **llm: Any,
) -> Tiny:
    """A GLM-ASR; `tower` and `llm` change its sizes, `seconds` and `longest` its windows."""
    config = GlmAsrConfig(
        audio_config={"model_type": "glmasr_encoder"} | TOWER | (tower or {}),
        text_config=LLM | llm,
        audio_token_id=GLM_TOKENS.index("<|pad|>"),
        tie_word_embeddings=tied,
    )
    processor = GlmAsrProcessor(
        extractor(config, seconds),
        tokenizer(GLM_TOKENS),
        chat_template=GLM_TEMPLATE,
        max_audio_len=longest,
    )
    return saved(folder, GlmAsrForConditionalGeneration, config, processor)


def audioflamingo3(
    folder: Path,
    tower: dict[str, Any] | None = None,
    seconds: int = 30,
    longest: int = 600,
    **llm: Any,
) -> Tiny:
    """An Audio Flamingo 3; `tower` and `llm` change its sizes, `seconds` and `longest` its windows.

    `projector_bias` is among the keywords, though it is the whole model's.
    """
    bias = llm.pop("projector_bias", True)
    positions = {"max_source_positions": 50 * seconds}
    config = AudioFlamingo3Config(
        audio_config={"model_type": "audioflamingo3_encoder"} | TOWER | positions | (tower or {}),
        text_config=LLM | {"model_type": "qwen2"} | llm,
        audio_token_id=QWEN_TOKENS.index("<sound>"),
        projector_bias=bias,
    )
    processor = AudioFlamingo3Processor(
        extractor(config, seconds),
        tokenizer(QWEN_TOKENS),
        chat_template=QWEN_TEMPLATE,
        max_audio_len=longest,
    )
    return saved(folder, AudioFlamingo3ForConditionalGeneration, config, processor)


def extractor(config: Any, seconds: int) -> WhisperFeatureExtractor:
    """Of the tower's spectrogram, in windows of so many seconds."""
    return WhisperFeatureExtractor(
        feature_size=config.audio_config.num_mel_bins, chunk_length=seconds
    )


def saved(folder: Path, kind: Any, config: Any, processor: Any) -> Tiny:
    """A random model of this kind and its processor, in the folder."""
    torch.manual_seed(0)
    model = kind(config)
    model.generation_config = GenerationConfig(eos_token_id=EOS, pad_token_id=0, max_new_tokens=8)
    loud(model)
    # No answer holds the token for audio, which nobody could give back in a later turn.
    model.get_output_embeddings().weight[config.audio_token_id] = 0
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return Tiny(folder, model)


def tokenizer(specials: tuple[str, ...]) -> PreTrainedTokenizerFast:
    """Bytes and the tokens of a prompt."""
    return PreTrainedTokenizerFast(
        tokenizer_object=of_bytes(specials), eos_token=specials[0], pad_token=specials[0]
    )


def changed(copy: Copy, section: str, **values: Any) -> None:
    """Change the config, or a section of it."""
    _said(copy.config, section, values)


def processed(copy: Copy, section: str, **values: Any) -> None:
    """Change the processor's settings, or a section of them."""
    _said(copy.folder / "processor_config.json", section, values)


def _said(file: Path, section: str, values: dict[str, Any]) -> None:
    plain = json.loads(file.read_text())
    (plain[section] if section else plain).update(values)
    file.write_text(json.dumps(plain))
