"""Tiny random Ultravox folders, laid out as published ones are, and the original put together.

The code beside a published checkpoint is no part of these tests. `Original` is written from what it
computes, of transformers' own Whisper layers and LLMs; `GOLDEN` (tests/data/ultravox.json) holds
what the code itself gave for the folders that `make` writes, once, outside of them.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from tokenizers import AddedToken
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    PreTrainedTokenizerFast,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperModel,
)

from tests.reference import DATA
from tests.wrappers.families.tiny_hf import of_bytes
from wrappers.checkpoint.plain_files import read_json

RATE = 16_000
GOLDEN = DATA / "ultravox.json"
CLIP = "<|audio|>"
BOS, EOS, TURN, HEAD, HEADED = (
    *("<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>"),
    *("<|start_header_id|>", "<|end_header_id|>"),
)
TOKENS = (BOS, EOS, TURN, HEAD, HEADED)
# As Llama 3 writes a conversation, and as it is in published folders but for tools.
TEMPLATE = """\
{{- bos_token }}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}
{{- "<|start_header_id|>system<|end_header_id|>\\n\\n" }}
{{- "Today Date: 26 Jul 2024\\n\\n" }}
{{- system_message }}
{{- "<|eot_id|>" }}
{%- for message in messages %}
    {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' }}
    {{- message['content'] | trim + '<|eot_id|>' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}
"""
TOWER: dict[str, Any] = dict(
    d_model=28,
    encoder_layers=2,
    encoder_attention_heads=2,
    encoder_ffn_dim=44,
    num_mel_bins=20,
    decoder_layers=1,
    decoder_attention_heads=1,
    decoder_ffn_dim=8,
    vocab_size=16,
    **dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id"), 1),
    decoder_start_token_id=1,
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
    bos_token_id=0,
    eos_token_id=[1, 2],
)
GREEDY: dict[str, Any] = dict(max_new_tokens=32, do_sample=False, num_beams=1)
LAYOUTS = WHOLE, TOWERED, BARE = "whole", "towered", "bare"
# Three that differ in all that a config can say.
SIZES: dict[str, dict[str, Any]] = {
    "as published since 0.5": dict(projector_ln_mid=True),
    "as published before, all in one, tied": dict(
        layout=WHOLE, hidden_size=50, stack_factor=5,
        tower=dict(d_model=36, encoder_attention_heads=3, num_mel_bins=17),
        llm=dict(tie_word_embeddings=True, num_key_value_heads=1),
    ),
    "towers named, blocks, no gate, another LLM": dict(
        layout=BARE, hidden_size=31, stack_factor=7, projector_act="gelu",
        projector_ln_mid=True, audio_latency_block_size=100,
        tower=dict(activation_function="relu", encoder_layers=3),
        llm=dict(model_type="qwen2", hidden_size=44, num_attention_heads=2, intermediate_size=52),
    ),
}  # fmt: skip
Said = tuple[str, list[np.ndarray], list[int]]  # words, `<|audio|>` where clips are; the answer


def make(
    folder: Path,
    layout: str = TOWERED,
    tower: dict[str, Any] | None = None,
    llm: dict[str, Any] | None = None,
    **settings: Any,
) -> Path:
    """Write a checkpoint, and beside it what its config names; its folder.

    Args:
        folder: to make.
        layout: WHOLE, all weights in it; TOWERED, the LLM in a folder beside it, as published;
            BARE, the projector alone, as where the tower was not trained.
        tower, llm: of WhisperConfig and of the LLM's, besides those of small ones.
        settings: of config.json.
    """
    whisper = WhisperConfig(**TOWER | (tower or {}))
    text = LLM | (llm or {})
    kind = text.pop("model_type")
    lm = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **text))
    speech = WhisperModel(whisper)
    settings = dict(hidden_size=48, stack_factor=8, projector_act="swiglu") | settings
    bridge = Projector(whisper.d_model, lm.config.hidden_size, settings)
    torch.manual_seed(0)  # here: what libraries begin with draws numbers as well
    for model in (speech.encoder, bridge, lm):
        _loud(model)
    folder.mkdir(parents=True, exist_ok=True)
    state = {f"multi_modal_projector.{n}": w for n, w in bridge.state_dict().items()}
    if layout == BARE:
        speech.save_pretrained(folder.parent / "whisper-tiny")
        _extractor(whisper).save_pretrained(folder.parent / "whisper-tiny")
        settings["audio_model_id"] = "openai/whisper-tiny"
    else:
        state |= {f"audio_tower.{n}": w for n, w in speech.encoder.state_dict().items()}
        settings["audio_config"] = whisper.to_dict() | {"_name_or_path": "openai/whisper-tiny"}
        _extractor(whisper).save_pretrained(folder)
    if layout == WHOLE:
        held = lm.state_dict()
        if lm.config.tie_word_embeddings:
            held.pop("lm_head.weight")
        state |= {f"language_model.{n}": w for n, w in held.items()}
        settings["text_config"] = lm.config.to_dict()
    else:
        lm.generation_config.eos_token_id = text["eos_token_id"]
        lm.save_pretrained(folder.parent / "Llama-tiny")
        settings["text_model_id"] = "meta-llama/Llama-tiny"
    save_file({n: w.contiguous().clone() for n, w in state.items()}, folder / "model.safetensors")
    _write(folder / "config.json", _published() | settings)
    _write(folder / "processor_config.json", _processor(settings["stack_factor"]))
    _write(folder / "generation_config.json", {"_from_model_config": True, "eos_token_id": [1, 2]})
    _tokenizer().save_pretrained(folder)
    return folder


def said(folder: Path, name: str = "config.json", **values: Any) -> None:
    """Change a JSON file of the folder."""
    _write(folder / name, read_json(folder / name) | values)


def _published() -> dict[str, Any]:
    return dict(
        architectures=["UltravoxModel"],
        audio_latency_block_size=None,
        audio_model_id=None,
        audio_token_index=261,
        auto_map={
            "AutoConfig": "ultravox_config.UltravoxConfig",
            "AutoModel": "ultravox_model.UltravoxModel",
            "AutoProcessor": "ultravox_processing.UltravoxProcessor",
        },
        custom_pipelines={"ultravox-pipeline": {"impl": "ultravox_pipeline.UltravoxPipeline"}},
        ignore_index=-100,
        initializer_range=0.02,
        model_type="ultravox",
        norm_init=0.4,
        pad_token_id=2,
        torch_dtype="float32",
        transformers_version="4.51.3",
        vocab_size=300,
    )


def _processor(stack: int) -> dict[str, Any]:
    return dict(
        audio_padding="longest",
        encoder_ds_factor=2,
        stack_factor=stack,
        audio_placeholder=CLIP,
        auto_map={"AutoProcessor": "ultravox_processing.UltravoxProcessor"},
        audio_context_size=3000,
        processor_class="UltravoxProcessor",
    )


def _extractor(whisper: WhisperConfig) -> WhisperFeatureExtractor:
    return WhisperFeatureExtractor(feature_size=whisper.num_mel_bins)


def _tokenizer() -> PreTrainedTokenizerFast:
    """Bytes and Llama's tokens; the last is one that the LLM's table has no row for."""
    made = of_bytes(TOKENS)
    made.add_special_tokens([AddedToken(CLIP, special=True, normalized=False)])
    return PreTrainedTokenizerFast(
        tokenizer_object=made, bos_token=BOS, eos_token=TURN, chat_template=TEMPLATE
    )


@torch.no_grad()
def _loud(model: Any) -> None:
    """Weights large enough that every clip is answered otherwise."""
    model.eval().requires_grad_(False)
    for name, weight in model.named_parameters():
        if weight.ndim == 1 and name.endswith("weight"):  # of a norm
            weight.normal_(1, 0.3)
        else:
            weight.normal_(0, 2 * weight.shape[-1] ** -0.5)
    if hasattr(model, "tie_weights"):
        model.tie_weights()


def _write(file: Path, plain: dict[str, Any]) -> None:
    file.write_text(json.dumps(plain, indent=1, default=str))


class Root(nn.Module):
    """x / rms(x) * weight, as a Llama's norm of 1e-6."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * x * (x.pow(2).mean(-1, keepdim=True) + 1e-6).rsqrt()


class Projector(nn.Module):
    """Rows of frames side by side, zeros in the last, through two layers and two norms."""

    def __init__(self, speech: int, out: int, settings: dict[str, Any]) -> None:
        super().__init__()
        self.stack, hidden = settings["stack_factor"], settings["hidden_size"]
        self.gated, wide = settings["projector_act"] == "swiglu", self.stack * speech
        middle = hidden // 2 if self.gated else hidden
        self.act = {"swiglu": F.silu, "gelu": F.gelu, "relu": F.relu}[settings["projector_act"]]
        self.ln_pre = Root(wide)
        self.linear_1 = nn.Linear(wide, hidden, bias=False)
        self.linear_2 = nn.Linear(middle, out, bias=False)
        if settings.get("projector_ln_mid", False):
            self.ln_mid = Root(middle)
        else:
            self.ln_post = Root(out)

    def forward(self, speech: Tensor) -> Tensor:
        rows = F.pad(speech, (0, 0, 0, -speech.shape[1] % self.stack))
        x = self.linear_1(self.ln_pre(rows.reshape(len(rows), -1, self.stack * rows.shape[2])))
        if self.gated:
            half = x.shape[-1] // 2
            x = x[..., :half] * self.act(x[..., half:])
        else:
            x = self.act(x)
        x = self.linear_2(self.ln_mid(x) if hasattr(self, "ln_mid") else x)
        return self.ln_post(x) if hasattr(self, "ln_post") else x


class Original:
    """The original, composed of what it is made of."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.settings = folder, read_json(folder / "config.json")
        state = load_file(folder / "model.safetensors")
        beside = folder.parent
        if self.settings.get("audio_model_id"):
            self.tower: Any = WhisperModel.from_pretrained(beside / "whisper-tiny").encoder
        else:
            known = dict(self.settings["audio_config"])
            self.tower = WhisperModel(WhisperConfig(**known)).encoder
            self.tower.load_state_dict(_below(state, "audio_tower."))
        if self.settings.get("text_model_id"):
            self.llm: Any = AutoModelForCausalLM.from_pretrained(beside / "Llama-tiny")
        else:
            text = dict(self.settings["text_config"])
            config = AutoConfig.for_model(text.pop("model_type"), **text)
            self.llm = AutoModelForCausalLM.from_config(config)
            self.llm.load_state_dict(_below(state, "language_model."), strict=False)
            self.llm.tie_weights()
        self.projector = Projector(
            self.tower.config.d_model, self.llm.config.hidden_size, self.settings
        )
        self.projector.load_state_dict(_below(state, "multi_modal_projector."))
        for model in (self.tower, self.llm, self.projector):
            model.eval().requires_grad_(False)
        self.extractor = _extractor(self.tower.config)
        self.tokenizer = _tokenizer()
        self.scale = 1.0  # of what is heard, in an LLM that multiplies all that comes in

    # --- what is heard

    def features(self, clip: np.ndarray) -> Tensor:
        """log-mel [mels, frames] of a clip alone, filled up to a whole hop."""
        filled = np.pad(clip, (0, max(0, 320 - len(clip))))
        made: Any = self.extractor(
            filled,
            sampling_rate=RATE,
            padding="longest",  # pyright: ignore
            pad_to_multiple_of=160,
            truncation=False,
            return_tensors="pt",
        )
        return made.input_features[0]

    def encoded(self, log_mel: Tensor, frames: int) -> Tensor:
        """A window [mels, given], of which `frames` are the clip's -> [1, given / 2, width]."""
        tower = self.tower
        x = F.gelu(tower.conv2(F.gelu(tower.conv1(log_mel[None])))).transpose(1, 2)
        count = x.shape[1]
        x = x + tower.embed_positions.weight[:count]
        at = torch.arange(count)
        seen = (at < (frames - 1) // 2 + 1).expand(count, -1)
        if block := self.settings.get("audio_latency_block_size"):
            seen = seen & (at // block <= at[:, None] // block)
        mask = torch.where(seen, 0.0, torch.finfo(x.dtype).min)[None, None]
        for layer in tower.layers:
            x = layer(x, mask)
        return tower.layer_norm(x)

    @torch.no_grad()
    def heard(self, clip: np.ndarray) -> Tensor:
        """The embeddings [rows, hidden] of a clip alone."""
        log_mel, most = self.features(clip), 2 * self.tower.config.max_source_positions
        made = []
        for start in range(0, log_mel.shape[1], most):
            window = log_mel[:, start : start + most]
            frames = window.shape[1]
            if start:  # only windows behind the first are filled up
                window = F.pad(window, (0, most - frames))
            rows = self.projector(self.encoded(window, frames))[0]
            made.append(rows[: -(-frames // (2 * self.settings["stack_factor"]))])
        return torch.cat(made) * self.scale

    # --- what is answered

    def asked(self, turns: Sequence[Said]) -> tuple[list[int], Tensor]:
        """Ids of turns, the end's for each embedding, and what goes into the LLM [rows, hidden]."""
        messages: list[dict[str, str]] = []
        for words, clips, _ in turns:
            content = words if CLIP in words or not clips else f"{words} {CLIP * len(clips)}"
            messages.append({"role": "user", "content": content})
            messages.append({"role": "assistant", "content": "ANSWER"})
        environment = jinja2.Environment(trim_blocks=True, lstrip_blocks=True)
        text = environment.from_string(TEMPLATE).render(
            messages=messages[:-1], add_generation_prompt=True, bos_token=BOS
        )
        end: Any = self.tokenizer.eos_token_id
        table = self.llm.get_input_embeddings()
        clips = [clip for _, clips, _ in turns for clip in clips]
        ids: list[int] = []
        rows: list[Tensor] = []

        def add(new: list[int]) -> None:
            ids.extend(new)
            rows.append(table(torch.tensor(new, dtype=torch.int64)))

        for i, said in enumerate(text.split("ANSWER")):
            if i:
                add([token for token in turns[i - 1][2] if token != end])
            for j, piece in enumerate(said.split(CLIP)):
                if j:
                    rows.append(self.heard(clips.pop(0)))
                    ids.extend([end] * len(rows[-1]))
                made: Any = self.tokenizer.encode(piece, add_special_tokens=False)
                add(made)
        return ids, torch.cat(rows)

    @torch.no_grad()
    def answer(self, *turns: Said, **options: Any) -> list[int]:
        """Greedy tokens to the last of the turns, with the pipeline's settings."""
        ids, embeds = self.asked(turns)
        given = torch.tensor([ids])
        settings: dict[str, Any] = dict(
            eos_token_id=[self.tokenizer.eos_token_id], pad_token_id=2, repetition_penalty=1.1
        )
        made = self.llm.generate(
            input_ids=given,
            inputs_embeds=embeds[None],
            attention_mask=torch.ones_like(given),
            **GREEDY | settings | options,
        )
        return made[0, len(ids) :].tolist()


def _below(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {n.removeprefix(prefix): w for n, w in state.items() if n.startswith(prefix)}
