"""Tiny random Voxtral Realtime folders, saved as transformers saves the published one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import (
    GenerationConfig,
    VoxtralRealtimeConfig,
    VoxtralRealtimeFeatureExtractor,
    VoxtralRealtimeForConditionalGeneration,
)

from tests.wrappers.families import tiny_hf
from tests.wrappers.families.tiny_qwen3_asr import loud

RATE = 16_000
BOS, EOS, PAD, WORD = 1, 2, 32, 33
LEFT, DELAY, RIGHT = 4, 6, 11  # steps; the published one has 32 on the left
TOWER: dict[str, Any] = dict(
    hidden_size=28,
    intermediate_size=44,
    num_hidden_layers=2,
    num_attention_heads=2,
    head_dim=10,
    num_mel_bins=20,
    sliding_window=60,
)
LLM: dict[str, Any] = dict(
    vocab_size=300,
    hidden_size=36,
    intermediate_size=60,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=10,
    max_position_embeddings=4096,
    sliding_window=50,
)


@dataclass(frozen=True)
class Tiny:
    """A folder, and the model of transformers that was saved in it."""

    folder: Path
    truth: Any
    left: int
    step: int  # samples

    @property
    def extractor(self) -> VoxtralRealtimeFeatureExtractor:
        """The folder's feature extractor."""
        return VoxtralRealtimeFeatureExtractor.from_pretrained(self.folder)

    def padded(self, clip: np.ndarray, delay: int = DELAY) -> np.ndarray:
        """The clip between the silences that mistral-common puts around it."""
        behind = -len(clip) % self.step + (delay + RIGHT) * self.step
        return np.pad(clip, (self.left * self.step, behind))

    def features(self, clip: np.ndarray, delay: int = DELAY) -> Tensor:
        """log-mel [1, mels, frames] of the padded clip, as transformers' processor makes it."""
        made: Any = self.extractor(
            self.padded(clip, delay), sampling_rate=RATE, return_tensors="pt"
        )
        return made.input_features

    def prompt(self, delay: int = DELAY) -> list[int]:
        """BOS and the tokens of steps before the first that is said."""
        return [BOS] + [PAD] * (self.left + delay)

    @torch.no_grad()
    def heard(self, clip: np.ndarray) -> Tensor:
        """The embeddings [rows, hidden] of a clip, its silences among them."""
        return self.truth.get_audio_features(self.features(clip)).pooler_output[0]

    @torch.no_grad()
    def answer(self, clip: np.ndarray, delay: int = DELAY, **settings: Any) -> list[int]:
        """Greedy tokens of the whole clip, as `generate` gives them."""
        ids = torch.tensor([self.prompt(delay)])
        made = self.truth.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            input_features=self.features(clip, delay),
            num_delay_tokens=delay,
            do_sample=False,
            **settings,
        )
        return made[0, ids.shape[1] :].tolist()

    @torch.no_grad()
    def streamed(self, clip: np.ndarray, delay: int = DELAY) -> list[int]:
        """As `answer`, but the sound is given as it comes: transformers' own way of a live run."""
        features = self.features(clip, delay)
        ids = torch.tensor([self.prompt(delay)])
        step = self.truth.config.audio_length_per_tok

        def pieces() -> Iterator[Tensor]:
            yield features[:, :, : ids.shape[1] * step]
            for at in range(ids.shape[1] * step, features.shape[2], step):
                yield features[:, :, at : at + step]

        made = self.truth.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            input_features=pieces(),
            num_delay_tokens=delay,
            do_sample=False,
        )
        return made[0, ids.shape[1] :].tolist()


def make(
    folder: Path,
    tower: dict[str, Any] | None = None,
    tied: bool = True,
    left: int = LEFT,
    stack: int = 4,
    extractor: dict[str, Any] | None = None,
    projector_hidden_act: str = "gelu",
    **llm: Any,
) -> Tiny:
    """A Voxtral Realtime; `tower` and `llm` change its sizes, `extractor` its spectrogram."""
    config = VoxtralRealtimeConfig(
        audio_config={"model_type": "voxtral_realtime_encoder"} | TOWER | (tower or {}),
        text_config={"model_type": "voxtral_realtime_text"} | LLM | llm,
        tie_word_embeddings=tied,
        downsample_factor=stack,
        audio_length_per_tok=2 * stack,
        projector_hidden_act=projector_hidden_act,
    )
    torch.manual_seed(0)
    model: Any = VoxtralRealtimeForConditionalGeneration(config)
    model.generation_config = GenerationConfig(
        bos_token_id=BOS, eos_token_id=EOS, pad_token_id=11, max_new_tokens=8
    )
    loud(model)
    # What is said follows the sound more than the token before it.
    model.model.multi_modal_projector.linear_2.weight.mul_(4)
    model.get_output_embeddings().weight[EOS] = 0  # no clip is left half-way
    model.save_pretrained(folder)
    mels = model.config.audio_config.num_mel_bins
    VoxtralRealtimeFeatureExtractor(feature_size=mels, **(extractor or {})).save_pretrained(folder)
    (folder / "tekken.json").write_text(json.dumps(tekken(mels, left, 320 * stack)))
    return Tiny(folder, model, left, 320 * stack)


def tekken(mels: int, left: int, step: int) -> dict[str, Any]:
    """The tekken.json of a stream: the other tiny ones', its tokens, and its section on sound."""
    made = tiny_hf.tekken()
    names = {PAD: "[STREAMING_PAD]", WORD: "[STREAMING_WORD]"}
    for rank, text in names.items():
        made["special_tokens"][rank]["token_str"] = text
    made["audio"] = {
        "sampling_rate": RATE,
        "frame_rate": RATE / step,
        "audio_encoding_config": {"num_mel_bins": mels, "hop_length": 160, "window_size": 400},
        "transcription_format": "streaming",
        "transcription_delay_ms": 1000.0 * DELAY * step / RATE,
        "streaming_look_ahead_ms": 2.5,
        "streaming_look_back_ms": 52.5,
        "streaming_n_left_pad_tokens": left,
    }
    return made
