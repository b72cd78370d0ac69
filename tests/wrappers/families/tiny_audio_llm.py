"""A small audio-llm with random weights, in the layout that the original's training leaves."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
import yaml
from safetensors.torch import load_file
from torch import Tensor, nn

from demo import random_checkpoint
from demo.random_checkpoint import Recipe
from wrappers.checkpoint.plain_files import read_json

RANK, ALPHA = 4, 16  # the original's rank is 64, its alpha always 16
SPEECH, WINDOW = 48, 4  # Whisper's width, and the seconds of its window
TOKENS = ["<audio>", "</audio>"]  # added to the LLM's, untrained
ADAPTED = ("q_proj", "k_proj", "v_proj", "gate_proj", "up_proj", "down_proj")


def make(folder: Path, rank: int = RANK, **llm_options: Any) -> Path:
    """Write whisper/, llm/, checkpoint.pt and the config.yaml that names them; its path.

    Args:
        folder: to make.
        rank: of the LoRA; 0 writes none.
        llm_options: of transformers' LlamaConfig, besides those of a small one.
    """
    recipe = Recipe(
        window_seconds=WINDOW,
        speech_width=SPEECH,
        audio_width=0,
        adapter="",
        llm_options=llm_options,
    )
    site = random_checkpoint.make(folder / "made", recipe).parent
    for part in ("whisper", "llm"):
        (site / part).rename(folder / part)
    shutil.rmtree(site)
    torch.manual_seed(1)
    config = read_json(folder / "llm" / "config.json")
    torch.save(trained(config, rank), folder / "checkpoint.pt")
    paths = dict(llama_path="llm", whisper_path="whisper", checkpoint_path="checkpoint.pt")
    (folder / "config.yaml").write_text(yaml.safe_dump({"audio_llm": paths}))
    return folder / "config.yaml"


def trained(config: dict[str, Any], rank: int) -> dict[str, Any]:
    """What the original's training saves; the LoRA is random on both sides, as after training."""
    state = projector(SPEECH, config["hidden_size"]).state_dict()
    return {
        "model": {"projector": state, "lora_layers": lora(config, rank) if rank else {}},
        "optimizer": {"state": {0: {"step": torch.tensor(2.0)}}, "param_groups": [{"lr": 5e-5}]},
        "scheduler": {"last_epoch": 2},
        "step": 50,
        "epoch": 1,
        "args": {"llama_path": "meta-llama/Llama-3.2-3B-Instruct", "lora_rank": 32},
        "dataset_config": None,
    }


def projector(into: int, out: int) -> nn.Sequential:
    """The original's AudioProjector, under the names that its state has (`layers.0` and on)."""
    between = (into + out) // 2
    made = nn.Sequential()
    made.add_module(
        "layers",
        nn.Sequential(
            nn.Linear(into, between), nn.GELU(), nn.Linear(between, out), nn.LayerNorm(out)
        ),
    )
    for each in made.parameters():
        nn.init.normal_(each, 0, 1.5 * each.shape[-1] ** -0.5)
    return made.eval().requires_grad_(False)


def lora(config: dict[str, Any], rank: int) -> dict[str, dict[str, Tensor]]:
    """Module -> A [rank, in] and B [out, rank]."""
    with torch.device("meta"):
        llm = transformers.LlamaForCausalLM(transformers.LlamaConfig(**config))
    return {
        name: {
            "lora_A": 0.15 * torch.randn(rank, module.in_features),
            "lora_B": 0.15 * torch.randn(module.out_features, rank),
        }
        for name, module in llm.named_modules()
        if isinstance(module, nn.Linear) and name.endswith(ADAPTED)
    }


class Original:
    """The original, composed of what it is made of."""

    def __init__(self, folder: Path) -> None:
        whisper = transformers.WhisperConfig.from_pretrained(folder / "whisper")
        self.encoder: Any = transformers.WhisperModel(whisper).encoder.eval()
        state = load_file(folder / "whisper" / "model.safetensors")
        self.encoder.load_state_dict({n.removeprefix("encoder."): t for n, t in state.items()})
        self.extractor = transformers.WhisperFeatureExtractor.from_pretrained(folder / "whisper")
        self.llm: Any = transformers.LlamaForCausalLM.from_pretrained(folder / "llm").eval()
        saved = torch.load(folder / "checkpoint.pt", weights_only=True)["model"]
        self.projector = projector(SPEECH, self.llm.config.hidden_size)
        self.projector.load_state_dict(saved["projector"])
        for name, pair in saved["lora_layers"].items():
            layer, rank = self.llm.get_submodule(name), len(pair["lora_A"])
            layer.weight.data += ALPHA / rank * pair["lora_B"] @ pair["lora_A"]
        self.tokenizer: Any = transformers.AutoTokenizer.from_pretrained(folder / "llm")
        self.tokenizer.add_special_tokens({"additional_special_tokens": TOKENS})
        self.ids = self.tokenizer.convert_tokens_to_ids(TOKENS)
        self.head = self.llm.lm_head.weight.clone()
        self.llm.resize_token_embeddings(len(self.tokenizer))

    def heard(self, clips: list[np.ndarray]) -> dict[str, Tensor]:
        """All tensors between samples and embeddings."""
        made: Any = self.extractor(clips, sampling_rate=16000, return_tensors="pt")
        speech = self.encoder(made.input_features).last_hidden_state
        return dict(log_mel=made.input_features, speech=speech, audio_embeds=self.projector(speech))
