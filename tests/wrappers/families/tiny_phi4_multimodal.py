"""Tiny random Phi-4-multimodal folders, as transformers' conversion lays published ones out."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import peft
import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import (
    GenerationConfig,
    Phi4MultimodalConfig,
    Phi4MultimodalFeatureExtractor,
    Phi4MultimodalForCausalLM,
    PreTrainedTokenizerFast,
)

from tests.wrappers.families.tiny_hf import of_bytes
from tests.wrappers.families.tiny_qwen3_asr import loud

RATE = 16_000
TOKENS = (
    *("<|endoftext|>", "<|end|>", "<|user|>", "<|assistant|>", "<|system|>"),
    *("<|endoftext10|>", "<|endoftext11|>"),
)
EOS, PLACEHOLDER = [1, 0], "<|endoftext11|>"
# As the published one writes a conversation.
TEMPLATE = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>' + message['content'] + "
    "'<|end|>' }}{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>' }}{% else %}"
    "{{ eos_token }}{% endif %}"
)
TOWER: dict[str, Any] = dict(
    hidden_size=28,
    intermediate_size=36,
    num_blocks=2,
    num_attention_heads=4,
    ext_pw_out_channel=28,
    depthwise_separable_out_channel=28,
    nemo_conv_channels=6,
    bias_max_distance=30,
)
VISION: dict[str, Any] = dict(
    hidden_size=16,
    intermediate_size=20,
    num_hidden_layers=2,
    num_attention_heads=2,
    image_size=28,
    crop_size=28,
    image_token_id=TOKENS.index("<|endoftext10|>"),
)
LLM: dict[str, Any] = dict(
    vocab_size=300,
    hidden_size=40,
    intermediate_size=44,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=8192,
    original_max_position_embeddings=4096,
    tie_word_embeddings=True,
    bos_token_id=0,
    eos_token_id=EOS,
    pad_token_id=0,
)
ROPE: dict[str, Any] = dict(
    rope_type="longrope",
    rope_theta=10000.0,
    partial_rotary_factor=0.8,
    short_factor=[1.0, 1.1, 1.2, 1.3],
    long_factor=[1.0, 2.0, 3.0, 4.0],
)
TARGETS = r"model.layers.\d+.((self_attn.(qkv|o)_proj)|(mlp.(gate_up|down)_proj))"
GREEDY: dict[str, Any] = dict(max_new_tokens=32, do_sample=False, num_beams=1)
ANSWER = "ANSWER"  # in the place of an answer's tokens
Said = tuple[str, list[np.ndarray], list[int]]  # a user's words, the clips before them, the answer


@dataclass(frozen=True)
class Tiny:
    """A folder, and the model of transformers that was saved in it, its speech LoRA active."""

    folder: Path
    truth: Any

    def features(self, clip: np.ndarray) -> Tensor:
        """The spectrogram [1, frames, mels] of a clip, as the folder's extractor makes it."""
        made = Phi4MultimodalFeatureExtractor.from_pretrained(self.folder)
        return made(clip, sampling_rate=RATE, return_tensors="pt")["audio_input_features"]

    @torch.no_grad()
    def heard(self, clip: np.ndarray) -> Tensor:
        """The embeddings [rows, hidden] of a clip alone."""
        features = self.features(clip)
        ears = self.truth.model.embed_tokens_extend.audio_embed
        reduction = self.truth.config.audio_config.time_reduction
        rows = -(-features.shape[1] // reduction)
        ids = torch.full((1, rows), TOKENS.index(PLACEHOLDER))
        table = self.truth.get_input_embeddings()
        return ears(ids, table(ids), features, audio_embed_sizes=[rows])[0]

    def asked(self, turns: Sequence[Said]) -> tuple[list[int], list[np.ndarray]]:
        """Ids of the turns, a token for each row of a clip, and all clips."""
        tokenizer = PreTrainedTokenizerFast.from_pretrained(self.folder)
        messages: list[dict[str, str]] = []
        for words, clips, _ in turns:
            messages.append({"role": "user", "content": PLACEHOLDER * len(clips) + words})
            messages.append({"role": "assistant", "content": ANSWER})
        text = jinja2.Template(TEMPLATE).render(messages=messages[:-1], add_generation_prompt=True)
        every = [clip for _, clips, _ in turns for clip in clips]
        left, ids = list(every), []
        for i, piece in enumerate(text.split(ANSWER)):
            for token in tokenizer.encode(piece, add_special_tokens=False):
                times = len(self.heard(left.pop(0))) if token == TOKENS.index(PLACEHOLDER) else 1
                ids += [token] * times
            ids += [token for token in turns[i][2] if token not in EOS]
        return ids, every

    def answer_to_two(self, words: str, clips: list[np.ndarray]) -> list[int]:
        """Greedy tokens to one turn about clips of one length, as the processor pads them."""
        extractor = Phi4MultimodalFeatureExtractor.from_pretrained(self.folder)
        made = extractor(clips, sampling_rate=RATE, return_tensors="pt")
        given = torch.tensor([self.asked([(words, clips, [])])[0]])
        settings = dict(eos_token_id=EOS, pad_token_id=0, attention_mask=torch.ones_like(given))
        return self.truth.generate(given, **made, **GREEDY, **settings)[
            0, given.shape[1] :
        ].tolist()

    def answer(self, *turns: Said) -> list[int]:
        """Greedy tokens to the last of the turns, as `generate` gives them.

        Several clips are put in as each is alone: the original pads them to one length, and
        attends to the padding.
        """
        ids, clips = self.asked(turns)
        given = torch.tensor([ids])
        heard: dict[str, Any] = {}
        if len(clips) == 1:
            features = self.features(clips[0])
            rows = torch.tensor([ids.count(TOKENS.index(PLACEHOLDER))])
            heard = dict(audio_input_features=features, audio_embed_sizes=rows)
        elif clips:
            embeds = self.truth.get_input_embeddings()(given).clone()
            embeds[given == TOKENS.index(PLACEHOLDER)] = torch.cat([self.heard(c) for c in clips])
            heard = dict(inputs_embeds=embeds)
        settings = dict(eos_token_id=EOS, pad_token_id=0, attention_mask=torch.ones_like(given))
        made = self.truth.generate(given, **heard, **GREEDY, **settings)
        return made[0, len(ids) :].tolist()


def make(
    folder: Path,
    tower: dict[str, Any] | None = None,
    rope: dict[str, Any] | None = None,
    lora: bool = True,
    extractor: dict[str, Any] | None = None,
    **llm: Any,
) -> Tiny:
    """A folder; `tower`, `rope`, `extractor` and `llm` change its settings."""
    config: Any = Phi4MultimodalConfig(
        **(LLM | llm),
        rope_parameters=copy.deepcopy(rope or ROPE),
        audio_config=TOWER | {"audio_token_id": TOKENS.index(PLACEHOLDER)} | (tower or {}),
        vision_config=VISION,
    )
    torch.manual_seed(0)
    model: Any = Phi4MultimodalForCausalLM(config)
    model.generation_config = GenerationConfig(eos_token_id=EOS, pad_token_id=0, max_new_tokens=8)
    loud(model)
    encoder = model.model.embed_tokens_extend.audio_embed.encoder
    encoder.encoder_embedding.global_mean.normal_(9, 1)
    encoder.encoder_embedding.global_invstd.uniform_(0.2, 0.4)
    # No answer holds a token for audio or images, which nobody could give back in a later turn,
    # and few end before their time.
    model.get_output_embeddings().weight[[0, 1, 5, 6]] = 0
    model.save_pretrained(folder)
    mels = config.audio_config.input_size
    made = Phi4MultimodalFeatureExtractor(
        feature_size=mels,
        audio_compression_rate=config.audio_config.time_reduction,
        **(extractor or {}),
    )
    made.save_pretrained(folder)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=of_bytes(TOKENS), eos_token="<|endoftext|>", pad_token="<|endoftext|>"
    )
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder)
    if lora:
        speech_lora(model, folder)
    return Tiny(folder, model.eval())


def speech_lora(model: Any, folder: Path) -> None:
    """A random speech LoRA beside the layers, and in its folder under the conversion's names."""
    settings = peft.LoraConfig(
        r=4, lora_alpha=8, target_modules=TARGETS, lora_dropout=0.01, task_type="CAUSAL_LM"
    )
    settings.save_pretrained(str(folder / "speech-lora"))
    with warnings.catch_warnings():  # peft asks transformers by a name that is going away
        warnings.simplefilter("ignore", FutureWarning)
        peft.inject_adapter_in_model(settings, model, adapter_name="speech")
    tensors: dict[str, Tensor] = {}
    for name, weight in model.named_parameters():
        if ".lora_" in name:
            weight.requires_grad_(False).normal_(0, 0.3)
            tensors[name.replace(".speech.", ".")] = weight.detach().clone()
    save_file(tensors, folder / "speech-lora" / "adapter_model.safetensors")
