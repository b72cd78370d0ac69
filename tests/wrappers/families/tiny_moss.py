"""Tiny random MOSS-Transcribe-Diarize folders, saved as transformers saves published ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import (
    MossTranscribeDiarizeConfig,
    MossTranscribeDiarizeFeatureExtractor,
    MossTranscribeDiarizeForConditionalGeneration,
    MossTranscribeDiarizeProcessor,
)

from tests.wrappers.checkpoint.checkpoints import Copy, renamed
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


def authors(copy: Copy, **more: Any) -> None:
    """The folder as the authors' own upload has it: other names, a Whisper's config, code."""
    plain = json.loads(copy.config.read_text())
    names = dict(
        hidden_size="d_model",
        num_hidden_layers="encoder_layers",
        num_attention_heads="encoder_attention_heads",
        intermediate_size="encoder_ffn_dim",
    )
    audio = {names.get(k, k): v for k, v in plain["audio_config"].items()}
    audio |= dict(model_type="whisper", scale_embedding=False, decoder_layers=3, vocab_size=51865)
    text = plain["text_config"]
    text["rope_theta"] = text.pop("rope_parameters")["rope_theta"]
    kept = {k: plain[k] for k in ("audio_token_id", "audio_merge_size", "tie_word_embeddings")}
    width = audio["d_model"] * plain["audio_merge_size"]
    auto = {"AutoConfig": "configuration_moss_transcribe_diarize.MossTranscribeDiarizeConfig"}
    theirs = dict(audio_config=audio, text_config=text, adaptor_input_dim=width, auto_map=auto)
    theirs |= kept | {"model_type": "moss_transcribe_diarize"} | more
    copy.config.write_text(json.dumps(theirs))
    processor = copy.folder / "processor_config.json"
    told = json.loads(processor.read_text())
    extractor = told.pop("feature_extractor") | {
        "feature_extractor_type": "WhisperFeatureExtractor"
    }
    (copy.folder / "preprocessor_config.json").write_text(json.dumps(extractor))
    processor.write_text(json.dumps(told | {"enable_time_marker": True}))
    for ours, name in (
        ("model.audio_tower.", "model.whisper_encoder."),
        ("model.multi_modal_projector.linear_1.", "model.vq_adaptor.layers.0."),
        ("model.multi_modal_projector.linear_2.", "model.vq_adaptor.layers.2."),
        ("model.multi_modal_projector.norm.", "model.vq_adaptor.layers.3."),
    ):
        copy.weights("", renamed(lambda key, a=ours, b=name: key.replace(a, b, 1)))


def taught(folder: Path, clip: np.ndarray, answer: str) -> Tiny:
    """One that was trained until it answers a request for this clip's transcript so.

    Raises:
        AssertionError: it did not learn that.
    """
    tiny = make(folder, template=ASKING, num_hidden_layers=1, hidden_size=48)
    asked = tiny.asked([(OWN, [clip], [])])
    prompt = asked.pop("input_ids")
    said = tiny.processor.tokenizer.encode(answer, add_special_tokens=False)
    want = torch.tensor([[*said, TOKENS.index("<|im_end|>")]])
    ids = torch.cat([prompt, want], 1)
    model = tiny.truth
    heard, places = tiny.heard(clip), ids[0] == model.config.audio_token_id
    weights = [*model.model.language_model.parameters()]
    for weight in weights:
        weight.requires_grad_(True)
        if weight.ndim > 1:
            weight.data.normal_(0, 0.02 if len(weight) == 300 else weight.shape[1] ** -0.5)
    adam = torch.optim.Adam(weights, 4e-3)
    for _ in range(600):
        embeds = model.get_input_embeddings()(ids[0]).masked_scatter(places[:, None], heard)
        states = model.model.language_model(inputs_embeds=embeds[None]).last_hidden_state
        guess = model.lm_head(states[0, prompt.shape[1] - 1 : -1])
        loss = torch.nn.functional.cross_entropy(guess, want[0])
        if float(loss.detach()) < 0.01:  # a token that is not the likeliest would cost more
            break
        adam.zero_grad()
        loss.backward()
        adam.step()
    else:
        raise AssertionError(f"{answer!r} was not learned")
    for weight in weights:
        weight.requires_grad_(False)
    model.save_pretrained(folder)
    return tiny
