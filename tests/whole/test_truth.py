"""Audio to tokens: the runtime says what the original says, put together here from its pieces.

Four checkpoints that differ in everything. The original is transformers' Whisper and Q-Former and
its LLM with an adapter of peft that is not merged, asked with `generate`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import peft
import pytest
import sentencepiece
import torch
import torch.nn.functional as F
import transformers
from torch import Tensor
from transformers import Blip2QFormerConfig, Blip2QFormerModel
from transformers.models.whisper.modeling_whisper import WhisperEncoder

import alm
from alm.generation.model import Model
from demo.random_checkpoint import Recipe, make
from tests.conftest import run_export
from tests.wrappers.checkpoint.checkpoints import (
    Copy,
    as_bin,
    in_peft,
    renamed,
    sentencepiece_folder,
)
from wrappers.checkpoint.weights.tensors import open_folder
from wrappers.encoders.beats import load_beats
from wrappers.families.salmonn import Salmonn
from wrappers.frontends.fbank import Fbank

QUESTION = "Please describe the audio."
SIZES: dict[str, Any] = dict(window_seconds=4, speech_width=32, bridge_width=48, bridge_heads=6)
ALL = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
MIXTURE: dict[str, Any] = dict(num_experts=6, num_experts_per_tok=2, tie_word_embeddings=False)
Rule = dict[str, Any]


@dataclass(frozen=True)
class Case:
    """A checkpoint, and what the original knows of it besides its files."""

    recipe: Recipe
    kernel: int
    stride: int
    adapter: Any = None  # of peft
    scale: float = 1.0  # of the audio's embeddings


CASES = {
    "overlapping windows of two queries, without BEATs, Qwen2 with VB-LoRA": Case(
        Recipe(
            seed=1,
            mels=128,
            audio_width=0,
            queries=2,
            second_per_window=0.5,
            second_stride=0.25,
            llm="Qwen2",
            adapter="vblora",
            **SIZES,
        ),
        kernel=25,
        stride=12,
        adapter=peft.VBLoRAConfig(
            r=4, num_vectors=16, vector_length=16, topk=2, target_modules=["q_proj", "v_proj"]
        ),
    ),
    "one window of five queries, with BEATs, Gemma 2 as it is": Case(
        Recipe(
            seed=2,
            queries=5,
            windowed=False,
            llm="Gemma2",
            llm_options=dict(
                head_dim=24,
                query_pre_attn_scalar=20,
                sliding_window=16,
                tie_word_embeddings=False,  # tied, a random Gemma says its last word again
            ),
            adapter="",
            **SIZES,
        ),
        kernel=200,
        stride=200,
        scale=8.0,  # transformers 4, with which the original trains, scales all that comes in
    ),
    "one window of three queries, without BEATs, Gemma 3": Case(
        Recipe(
            seed=4,
            audio_width=0,
            queries=3,
            windowed=False,
            llm="Gemma3Text",
            llm_options=dict(
                head_dim=24,
                num_hidden_layers=4,
                query_pre_attn_scalar=20,
                sliding_window=16,
                sliding_window_pattern=2,
                rope_scaling=dict(rope_type="linear", factor=8.0),
                final_logit_softcapping=30.0,
                tie_word_embeddings=False,
            ),
            adapter="",
            **SIZES,
        ),
        kernel=200,
        stride=200,  # and never scaled: no transformers ever scaled what comes into a Gemma 3
    ),
    "without BEATs, Qwen3 MoE with LoRA": Case(
        Recipe(
            seed=4,
            audio_width=0,
            llm="Qwen3Moe",
            llm_options=MIXTURE,
            **SIZES,
        ),
        kernel=17,
        stride=17,
        adapter=peft.LoraConfig(r=4, lora_alpha=16, target_modules=["q_proj", "v_proj"]),
    ),
    "sentencepiece, old files, Llama untied and ungrouped, LoRA on all": Case(
        Recipe(
            seed=3,
            llm_options=dict(tie_word_embeddings=False, num_key_value_heads=4, vocab_size=480),
            adapter="",
            **SIZES,
        ),
        kernel=17,
        stride=17,
        adapter=peft.LoraConfig(r=4, lora_alpha=16, target_modules=ALL),
    ),
}


def aged(config: Path, case: Case, folder: Path) -> Path:
    """The third checkpoint: what `make` does not make of it."""
    copy = Copy(config, folder).settings(lora=True, end_sym="")
    llm = transformers.LlamaForCausalLM.from_pretrained(copy.folder / "llm")
    state = in_peft(llm, case.adapter).state_dict()
    noise = {
        f"llama_model.{n}": 0.2 * torch.randn(t.shape) for n, t in state.items() if "lora_" in n
    }
    copy.trained(lambda model: model.update(noise))
    copy.trained(renamed(lambda name: f"module.{name}"))
    for name in ("llm", "whisper"):
        as_bin(copy.folder / name)
    for name in ("salmonn.pth", "beats.pt"):
        plain = torch.load(copy.folder / name, weights_only=True)
        torch.save(plain, copy.folder / name, _use_new_zipfile_serialization=False)
    (copy.folder / "llm" / "tokenizer.json").unlink()
    said = dict(tokenizer_class="LlamaTokenizer", bos_token="<s>", eos_token="</s>")
    sentencepiece_folder(copy.folder / "llm", said, vocab_size=470)
    return copy.config


class Original:
    """SALMONN as its code has it, on the files of a checkpoint."""

    def __init__(self, config: Path, case: Case) -> None:
        self.folder, self.case = config.parent, case
        whisper = self.folder / "whisper"
        self.extract = transformers.WhisperFeatureExtractor.from_pretrained(whisper)
        said = transformers.WhisperConfig.from_pretrained(whisper)
        self.whisper = WhisperEncoder(said).eval()
        self.whisper.load_state_dict(open_folder(whisper).under("encoder.").take())
        plain = torch.load(self.folder / "salmonn.pth", weights_only=True)["model"]
        self.trained = {n.removeprefix("module."): t for n, t in plain.items()}
        self.llm: Any = self.read_llm()
        if case.adapter:
            tuned = in_peft(self.llm, case.adapter)
            found = self.under("llama_model.")
            assert tuned.load_state_dict(found, strict=False).unexpected_keys == []
            assert found
        self.beats = None
        if (self.folder / "beats.pt").is_file():
            file = torch.load(self.folder / "beats.pt", weights_only=True)
            self.beats = load_beats(file["model"], file["cfg"])
        self.qformer = self._qformer()

    def read_llm(self) -> Any:
        return transformers.AutoModelForCausalLM.from_pretrained(
            self.folder / "llm", attn_implementation="eager"
        ).eval()

    def under(self, prefix: str) -> dict[str, Tensor]:
        return {n[len(prefix) :]: t for n, t in self.trained.items() if n.startswith(prefix)}

    def _qformer(self) -> Blip2QFormerModel:
        recipe = self.case.recipe
        config = Blip2QFormerConfig(
            hidden_size=recipe.bridge_width,
            num_hidden_layers=2,
            num_attention_heads=recipe.bridge_heads,
            intermediate_size=2 * recipe.bridge_width,
            layer_norm_eps=1e-12,
            cross_attention_frequency=1,
            encoder_hidden_size=recipe.speech_width + recipe.audio_width,
        )
        state = self.under("speech_Qformer.bert.")
        del state["embeddings.position_ids"]
        theirs = {
            n.replace("embeddings.LayerNorm", "layernorm").replace(".self.", ".attention."): t
            for n, t in state.items()
        }
        model = Blip2QFormerModel(config).eval()
        model.load_state_dict(theirs)
        return model

    def norm(self, name: str, x: Tensor) -> Tensor:
        weight, bias = self.trained[f"{name}.weight"], self.trained[f"{name}.bias"]
        return F.layer_norm(x, weight.shape, weight, bias)

    def hear(self, pcm: np.ndarray) -> Tensor:
        """The audio's embeddings [1, tokens, width]."""
        case = self.case
        log_mel = self.extract(pcm, sampling_rate=16000, return_tensors="pt").input_features
        frames = self.norm("ln_speech", self.whisper(log_mel).last_hidden_state)
        if self.beats:
            wave = torch.from_numpy(pcm)[None]
            audio, _ = self.beats(*Fbank()(wave, torch.tensor([wave.shape[1]])))
            audio = self.norm("ln_audio", audio)
            tail = frames.shape[1] - audio.shape[1]
            frames = torch.cat((frames, F.pad(audio, (0, 0, 0, tail))), -1)
        # The original's way of cutting windows.
        wide = F.unfold(frames.mT[:, :, None], (1, case.kernel), stride=(1, case.stride))
        wide = wide.reshape(1, frames.shape[-1], case.kernel, -1)
        windows = wide.permute(0, 3, 2, 1).flatten(0, 1)
        queries = self.trained["speech_query_tokens"].expand(len(windows), -1, -1)
        said = self.qformer(query_embeds=queries, encoder_hidden_states=windows).last_hidden_state
        projection = self.under("speech_llama_proj.")
        return F.linear(said, projection["weight"], projection["bias"]).flatten(0, 1)[None]

    def ids(self, text: str) -> list[int]:
        pieces = self.folder / "llm" / "tokenizer.model"
        if pieces.is_file():
            return sentencepiece.SentencePieceProcessor(model_file=str(pieces)).encode(text)  # pyright: ignore
        tokenizer = transformers.AutoTokenizer.from_pretrained(self.folder / "llm")
        return tokenizer(text, add_special_tokens=False).input_ids

    @torch.no_grad()
    def generate(self, pcm: np.ndarray, rule: Rule) -> list[int]:
        embed = self.llm.get_input_embeddings()
        before, after = "USER: <Speech>", f"</Speech> {QUESTION}\nASSISTANT:"
        pieces = [
            embed(torch.tensor([[1, *self.ids(before)]])),
            self.hear(pcm) * self.case.scale,
            embed(torch.tensor([self.ids(after)])),
        ]
        embeds = torch.cat(pieces, 1)
        mask = torch.ones(embeds.shape[:2], dtype=torch.int64)
        plain = dict(max_new_tokens=12, do_sample=False, pad_token_id=0) | rule
        return self.llm.generate(inputs_embeds=embeds, attention_mask=mask, **plain)[0].tolist()


@pytest.fixture(scope="module", params=CASES)
def pair(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Original, Model]:
    """The original and the runtime on what was exported, of one checkpoint."""
    case, folder = CASES[request.param], tmp_path_factory.mktemp("truth")
    config = make(folder / "model", case.recipe)
    if "sentencepiece" in request.param:
        config = aged(config, case, folder)
    run_export("--model", config, "--out", folder / "artifacts")
    return Original(config, case), alm.load(folder / "artifacts", provider="cpu")


def clip(seconds: float) -> np.ndarray:
    """A chirp in noise."""
    time = np.arange(int(seconds * 16000)) / 16000
    noise = np.random.default_rng(0).standard_normal(len(time))
    return (0.3 * np.sin(900 * time**2) + 0.02 * noise).astype(np.float32)


@pytest.mark.parametrize("seconds", [1.5, 4.0])
@torch.no_grad()
def test_the_audio_is_heard_as_the_original_hears_it(
    pair: tuple[Original, Model], seconds: float
) -> None:
    original, model = pair
    pcm = clip(seconds)
    wanted = original.hear(pcm).numpy() * original.case.scale
    feeds = {"pcm": pcm[None], "pcm_lengths": np.array([len(pcm)])}
    got = model.parts.pipeline.forward(feeds)["audio_embeds"]
    assert got.shape == wanted.shape
    assert np.abs(got - wanted).max() < 1e-3 * max(1.0, float(np.abs(wanted).max()))


@pytest.mark.parametrize("rule", [dict(num_beams=1), dict(num_beams=3)], ids=["greedy", "beams"])
@pytest.mark.parametrize("seconds", [1.5, 4.0])
def test_the_tokens_are_those_of_the_original(
    pair: tuple[Original, Model], seconds: float, rule: Rule
) -> None:
    original, model = pair
    answer = model.generate(clip(seconds), QUESTION, max_new_tokens=12, **rule)
    wanted = original.generate(clip(seconds), rule)
    assert answer.token_ids == wanted
    assert len(set(wanted)) > 2  # not one token over and over


@torch.no_grad()
def test_the_audio_matters(pair: tuple[Original, Model]) -> None:
    _, model = pair
    short = model.generate(clip(1.5), QUESTION, max_new_tokens=12, num_beams=1)
    silence = model.generate(np.zeros(24000, np.float32), QUESTION, max_new_tokens=12, num_beams=1)
    assert short.token_ids != silence.token_ids


def test_a_gemma_trained_with_newer_transformers_hears_unscaled(tmp_path: Path) -> None:
    recipe = Recipe(window_seconds=4, audio_width=0, llm="Gemma2", adapter="")
    copy = Copy(make(tmp_path / "model", recipe), tmp_path)
    scaled = Salmonn(copy.config).qformer().state_dict()["speech_llama_proj.weight"]
    plain = Salmonn(copy.settings(scaled_audio=False).config).qformer().state_dict()
    assert torch.equal(scaled, 8 * plain["speech_llama_proj.weight"])
