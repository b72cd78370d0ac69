"""Tiny random MOSS-Transcribe-Diarize folders, saved as transformers saves published ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import (
    MossTranscribeDiarizeConfig,
    MossTranscribeDiarizeFeatureExtractor,
    MossTranscribeDiarizeForConditionalGeneration,
    MossTranscribeDiarizeProcessor,
)

from tests.wrappers.families.tiny_windowed import LLM, TOWER, Tiny, saved, tokenizer

TOKENS = (
    *("<|endoftext|>", "<|im_start|>", "<|im_end|>"),
    *("<|audio_start|>", "<|audio_end|>", "<|audio_pad|>"),
)
TEMPLATE = """\
{%- if messages[0].role != 'system' -%}
{{- '<|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n' -}}
{%- endif -%}
{%- for message in messages -%}
{{- '<|im_start|>' + message.role + '\\n' -}}
{%- if message.content is string -%}
{{- message.content -}}
{%- else -%}
{%- for part in message.content -%}
{%- if part.type == 'audio' or 'audio' in part -%}
{{- '<|audio_start|><|audio_pad|><|audio_end|>\\n' -}}
{%- elif part.type == 'text' -%}
{{- part.text -}}
{%- endif -%}
{%- endfor -%}
{%- endif -%}
{{- '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{- '<|im_start|>assistant\\n' -}}
{%- endif -%}"""
OWN = "Write it down, with times and speakers."
# One that asks itself where a user says nothing, and puts clips before all words.
ASKING = """\
{{- '<|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n' -}}
{%- for message in messages -%}
{{- '<|im_start|>' + message.role + '\\n' -}}
{%- set of = namespace(clips='', text='') -%}
{%- for part in message.content -%}
{%- if part.type == 'audio' -%}
{%- set of.clips = of.clips + '<|audio_start|><|audio_pad|><|audio_end|>\\n' -%}
{%- elif part.type == 'text' -%}
{%- set of.text = of.text + part.text -%}
{%- endif -%}
{%- endfor -%}
{%- if of.clips and not of.text -%}
{%- set of.text = 'OWN' -%}
{%- endif -%}
{{- of.clips + of.text + '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{- '<|im_start|>assistant\\n' -}}
{%- endif -%}""".replace("OWN", OWN)


def make(
    folder: Path,
    tower: dict[str, Any] | None = None,
    whole: dict[str, Any] | None = None,
    told: dict[str, Any] | None = None,
    seconds: int = 30,
    template: str = TEMPLATE,
    **llm: Any,
) -> Tiny:
    """A folder; `tower` and `llm` change sizes, `whole` the model's, `told` the processor's."""
    whole = {"audio_merge_size": 4} | (whole or {})
    kind = {"model_type": "moss_transcribe_diarize_audio", "max_source_positions": 50 * seconds}
    config: Any = MossTranscribeDiarizeConfig(
        audio_config=kind | TOWER | (tower or {}),
        text_config=LLM | {"model_type": "qwen3"} | llm,
        audio_token_id=TOKENS.index("<|audio_pad|>"),
        audio_chunk_size=16_000 * seconds,
        **whole,
    )
    extractor = MossTranscribeDiarizeFeatureExtractor(
        feature_size=config.audio_config.num_mel_bins, chunk_length=seconds
    )
    said = {"audio_merge_size": whole["audio_merge_size"]} | (told or {})
    processor = MossTranscribeDiarizeProcessor(
        extractor, tokenizer(TOKENS), chat_template=template, **said
    )
    return saved(folder, MossTranscribeDiarizeForConditionalGeneration, config, processor)
