"""Tiny random Granite Speech folders, saved as transformers saves the published ones."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import numpy as np
import peft
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import (
    GenerationConfig,
    GraniteSpeechConfig,
    GraniteSpeechForConditionalGeneration,
    GraniteSpeechPlusConfig,
    GraniteSpeechPlusForConditionalGeneration,
    PreTrainedTokenizerFast,
)

from tests.wrappers.checkpoint.checkpoints import in_peft
from tests.wrappers.families.tiny_hf import of_bytes

RATE, HOP = 16_000, 160
SPECIALS = ("<|end_of_text|>", "<|start_of_role|>", "<|end_of_role|>", "<|pad|>", "<|audio|>")
AUDIO = SPECIALS.index("<|audio|>")
EOS = [0]
ASK = "can you transcribe the speech into a written format?"
# As the published one of 4.x writes a conversation: nothing closes an answer.
TEMPLATE_4 = (
    "{% for message in messages %}{% if message['role'] == 'user' %}"
    "USER: {{ message['content'] }}\n ASSISTANT:"
    "{% elif message['role'] == 'assistant' %}{{ message['content'] }}"
    "{% endif %}{% endfor %}"
)
# As the published one of 3.3: a system turn of its own with the day's date.
TEMPLATE_3 = """\
{%- if messages[0]['role'] == 'system' -%}
    {%- set system_message = messages[0]['content'] -%}
    {%- set loop_messages = messages[1:] -%}
{%- else -%}
    {%- set system_message = "Knowledge Cutoff Date: April 2024.\\nToday's Date: " + \
strftime_now('%B %d, %Y') + ".\\nYou are Granite, developed by IBM." -%}
    {%- if thinking -%}
        {%- set system_message = system_message + " Write your thoughts down." -%}
    {%- else -%}
        {%- set system_message = system_message + " You are a helpful AI assistant." -%}
    {%- endif -%}
    {%- set loop_messages = messages -%}
{%- endif -%}
<|start_of_role|>system<|end_of_role|>{{ system_message }}<|end_of_text|>
{% for message in loop_messages -%}
    <|start_of_role|>{{ message['role'] }}<|end_of_role|>{{ message['content'] }}<|end_of_text|>
{% if loop.last and add_generation_prompt -%}
    <|start_of_role|>assistant
    {%- if controls -%}
        {{ ' ' + controls | tojson }}
    {%- endif -%}
    <|end_of_role|>
    {%- endif -%}
{%- endfor %}"""
ENCODER: dict[str, Any] = dict(
    input_dim=160,
    num_layers=3,
    hidden_dim=36,
    num_heads=3,
    dim_head=10,
    output_dim=13,
    context_size=200,
    max_pos_emb=210,
)
PROJECTOR: dict[str, Any] = dict(
    model_type="blip_2_qformer",
    hidden_size=28,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=44,
    encoder_hidden_size=36,
    cross_attention_frequency=1,
)
LLM: dict[str, Any] = dict(
    model_type="granite",
    vocab_size=300,
    hidden_size=36,
    intermediate_size=60,
    num_hidden_layers=2,
    num_attention_heads=6,
    num_key_value_heads=2,
    max_position_embeddings=4096,
    embedding_multiplier=3.0,
    residual_multiplier=0.4,
    attention_multiplier=0.3,
    logits_scaling=2.0,
)
SIZES: dict[str, dict[str, Any]] = {
    "3.x, with its adapter": dict(lora=True, template=TEMPLATE_3),
    "4.x, odd sizes": dict(
        tied=False, window=(12, 3), attention_bias=True, mlp_bias=True, num_key_value_heads=3,
        encoder=dict(context_size=30, max_pos_emb=40, conv_kernel_size=8, num_layers=4,
                     hidden_dim=20, num_heads=2, dim_head=None, feedforward_mult=3,
                     conv_expansion_factor=3),
        projector=dict(encoder_hidden_size=20, num_hidden_layers=3, num_attention_heads=4),
    ),
    "plus, another LLM": dict(
        plus=True, window=(8, 8), model_type="llama", head_dim=10,
        encoder=dict(input_dim=34, cat_hidden_layers=[2, 0], num_layers=4, context_size=23,
                     max_pos_emb=23),
        projector=dict(encoder_hidden_size=108, cross_attention_frequency=2, num_hidden_layers=3,
                       hidden_act="relu", layer_norm_eps=1e-5),
    ),
}  # fmt: skip
GREEDY: dict[str, Any] = dict(max_new_tokens=32, do_sample=False, num_beams=1)
ANSWER = "ANSWER"  # in the place of an answer's tokens
Said = tuple[str, list[np.ndarray], list[int]]  # a user's words, the clips before them, the answer


@dataclass(frozen=True)
class Tiny:
    """A folder, and the model of transformers that was saved in it, its adapter beside it."""

    folder: Path
    truth: Any
    tokenizer: Any

    @property
    def mels(self) -> int:
        """Mel bins, of which two frames stand side by side."""
        return self.truth.config.encoder_config.input_dim // 2

    def rows_of(self, samples: int) -> int:
        """As the extractor's `_get_num_audio_features` counts them."""
        config = self.truth.config
        window, rate = config.window_size, config.downsample_rate
        return math.ceil((samples // HOP + 1) // 2 / window) * (window // rate)

    @torch.no_grad()
    def heard(self, clip: np.ndarray) -> Tensor:
        """The embeddings [rows, hidden] of a clip alone."""
        made = self.truth.get_audio_features(features(clip, self.mels))
        return made.pooler_output[0]

    def text(self, turns: Sequence[Said]) -> str:
        """The prompt as the tokenizer's template writes it, a placeholder for each embedding."""
        messages: list[dict[str, str]] = []
        for words, clips, _ in turns:
            messages.append({"role": "user", "content": SPECIALS[AUDIO] * len(clips) + words})
            messages.append({"role": "assistant", "content": ANSWER})
        return self.tokenizer.apply_chat_template(
            messages[:-1], tokenize=False, add_generation_prompt=True
        )

    def ids(self, turns: Sequence[Said]) -> list[int]:
        """The prompt's tokens, with the answers that were given."""
        first, *rest = self.text(turns).split(SPECIALS[AUDIO])
        counts = [self.rows_of(len(clip)) for _, clips, _ in turns for clip in clips]
        repeated = [SPECIALS[AUDIO] * count for count in counts]
        text = first + "".join(a + b for a, b in zip(repeated, rest, strict=True))
        pieces = text.split(ANSWER)
        ids: list[int] = []
        for piece, (_, _, answer) in zip(pieces, turns, strict=True):
            ids += self.tokenizer.encode(piece, add_special_tokens=False)
            ids += [] if piece is pieces[-1] else [token for token in answer if token not in EOS]
        return ids

    def answer(self, *turns: Said) -> list[int]:
        """Greedy tokens to the last of the turns, as `generate` gives them.

        Several clips are heard one by one, since a batch of transformers' hears its padding.
        """
        ids = torch.tensor([self.ids(turns)])
        clips = [clip for _, clips, _ in turns for clip in clips]
        settings = dict(eos_token_id=EOS, pad_token_id=3, attention_mask=torch.ones_like(ids))
        heard = {"input_features": features(clips[0], self.mels)} if clips else {}
        with self._each_alone(clips):
            made = self.truth.generate(input_ids=ids, **heard, **GREEDY, **settings)
        return made[0, ids.shape[1] :].tolist()

    @contextmanager
    def _each_alone(self, clips: list[np.ndarray]) -> Iterator[None]:
        if len(clips) < 2:
            yield
            return
        heard = SimpleNamespace(pooler_output=torch.cat([self.heard(clip) for clip in clips]))
        with patch.object(self.truth.model, "get_audio_features", lambda *_, **__: heard):
            yield


def features(clip: np.ndarray, mels: int = 80) -> Tensor:
    """[1, pairs, 2 * mels] of a clip, as GraniteSpeechFeatureExtractor makes them.

    It wants torchaudio, of whose MelSpectrogram this is the formula.
    """
    window = torch.zeros(512)
    window[56:456] = torch.hann_window(400)
    spectrum = torch.stft(
        torch.from_numpy(clip)[None], 512, HOP, window=window, return_complex=True
    )
    mel = spectrum.abs().square().transpose(1, 2) @ htk_filters(mels)
    log = mel.clamp(min=1e-10).log10()
    log = torch.maximum(log, log.amax(dim=(1, 2), keepdim=True) - 8.0) / 4 + 1
    return log[:, : log.shape[1] // 2 * 2].reshape(1, -1, 2 * mels)


def htk_filters(mels: int) -> Tensor:
    """[257, mels], as torchaudio's melscale_fbanks with `htk` and no norm."""
    top = 2595.0 * math.log10(1.0 + RATE / 2 / 700.0)
    edges = 700.0 * (10.0 ** (torch.linspace(0.0, top, mels + 2) / 2595.0) - 1.0)
    widths = edges[1:] - edges[:-1]
    slopes = edges[None] - torch.linspace(0, RATE // 2, 257)[:, None]
    rising, falling = -slopes[:, :-2] / widths[:-1], slopes[:, 2:] / widths[1:]
    return torch.minimum(rising, falling).clamp(min=0.0)


def make(
    folder: Path,
    *,
    plus: bool = False,
    tied: bool = True,
    template: str = TEMPLATE_4,
    lora: bool = False,
    window: tuple[int, int] = (15, 5),
    encoder: dict[str, Any] | None = None,
    projector: dict[str, Any] | None = None,
    **llm: Any,
) -> Tiny:
    """A Granite Speech; `encoder`, `projector` and `llm` change its sizes.

    Args:
        plus: a granite_speech_plus.
        lora: an adapter of the LLM beside the weights, named as the published ones are.
        window: window_size and downsample_rate.
    """
    kind, model_class = GraniteSpeechConfig, GraniteSpeechForConditionalGeneration
    if plus:
        kind, model_class = GraniteSpeechPlusConfig, GraniteSpeechPlusForConditionalGeneration
    config: Any = kind(
        encoder_config={"model_type": f"{kind.model_type}_encoder"} | ENCODER | (encoder or {}),
        projector_config=PROJECTOR | (projector or {}),
        text_config=LLM | llm,
        audio_token_index=AUDIO,
        has_lora_adapter=lora,
        window_size=window[0],
        downsample_rate=window[1],
        tie_word_embeddings=tied,
    )
    torch.manual_seed(0)
    model: Any = model_class(config)
    model.generation_config = GenerationConfig(eos_token_id=EOS, pad_token_id=3, max_new_tokens=8)
    _loud(model)
    model.save_pretrained(folder)
    words = tokenizer(template)
    words.save_pretrained(folder)
    (folder / "processor_config.json").write_text(json.dumps(processor(config)))
    return Tiny(folder, adapted(folder, model) if lora else model, words)


def _loud(model: Any) -> None:
    """Weights large enough that every clip is answered otherwise."""
    model.eval().requires_grad_(False)
    for name, weight in model.named_parameters():
        if weight.ndim == 1 and name.endswith("weight"):  # of a norm
            weight.normal_(1, 0.3)
        else:
            weight.normal_(0, (2 if weight.ndim > 1 else 0.5) * weight[0].numel() ** -0.5)
    for name, value in model.named_buffers():
        if name.endswith("running_mean"):
            value.normal_(0, 0.5)
        elif name.endswith("running_var"):
            value.uniform_(0.5, 3.0)
    # No answer holds the token for audio, which nobody could give back in a later turn.
    model.get_output_embeddings().weight[AUDIO] = 0


def adapted(folder: Path, model: Any) -> Any:
    """The model with an adapter of its LLM, which is beside its weights under published names."""
    torch.manual_seed(1)
    modules = r".*language_model.*(q_proj|v_proj|up_proj)"
    tuned: Any = in_peft(model, peft.LoraConfig(r=3, lora_alpha=9, target_modules=modules))
    for name, weight in tuned.named_parameters():
        if "lora_" in name:
            weight.data.normal_(0, 0.3)
    tuned.save_pretrained(folder)
    file = folder / "adapter_model.safetensors"
    save_file({published(name): t for name, t in load_file(file).items()}, file)
    tuned.requires_grad_(False)
    return tuned.base_model.model


def published(name: str) -> str:
    """An adapter's tensor as transformers 4 called it, which the published folders have."""
    old = name.replace("model.model.language_model.", "model.language_model.model.")
    assert old != name
    return old


def tokenizer(template: str) -> PreTrainedTokenizerFast:
    """Bytes and the tokens of a prompt."""
    return PreTrainedTokenizerFast(
        tokenizer_object=of_bytes(SPECIALS),
        bos_token=SPECIALS[0],
        eos_token=SPECIALS[0],
        pad_token="<|pad|>",
        chat_template=template,
    )


def processor(config: Any) -> dict[str, Any]:
    """The processor_config.json that GraniteSpeechProcessor saves."""
    mels = config.encoder_config.input_dim // 2
    extractor = {
        "feature_extractor_type": "GraniteSpeechFeatureExtractor",
        "feature_size": mels,
        "melspec_kwargs": {
            "hop_length": HOP,
            "n_fft": 512,
            "n_mels": mels,
            "sample_rate": RATE,
            "win_length": 400,
        },
        "padding_side": "right",
        "padding_value": 0.0,
        "projector_downsample_rate": config.downsample_rate,
        "projector_window_size": config.window_size,
        "return_attention_mask": True,
        "sampling_rate": RATE,
    }
    if mels != 80:  # which it reads, but does not save
        extractor["n_mels"] = mels
    return {
        "audio_processor": extractor,
        "audio_token": SPECIALS[AUDIO],
        "processor_class": "GraniteSpeechProcessor",
    }
