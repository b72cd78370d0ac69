"""Listener: a Whisper folder, one linear layer and an LLM folder, named by a config.yaml.

listener:
  whisper_path: whisper
  llama_path: llm
  projector_path: projector.safetensors
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from alm.facts import AudioFacts, Facts, PromptFacts, TokenFacts
from wrappers import Checkpoint, Wrapper
from wrappers.bridges.projector import Projector
from wrappers.checkpoint import llm_files
from wrappers.checkpoint.named_folders import Folders
from wrappers.checkpoint.text import tokenizer_files
from wrappers.checkpoint.weights.hollow import attach, hollow
from wrappers.checkpoint.weights.tensors import Weights
from wrappers.checkpoint.yaml_config import config_file, recognised
from wrappers.frontends.mel import RATE

LOOKS_LIKE = "a config.yaml with a section `listener`"
PLACEHOLDER = "<AudioHere>"


def recognises(path: Path) -> bool:
    """Whether `path` is, or holds, a config.yaml with our section."""
    return recognised(path, lambda c: isinstance(c, dict) and "listener" in c, ["listener:"])


def load(path: Path) -> Checkpoint:
    """Take the checkpoint apart."""
    return Listener(config_file(path)).checkpoint()


class Listener(Folders):
    """The checkpoint taken apart."""

    @cached_property
    def settings(self) -> dict[str, Any]:
        return self.section("listener")

    def projector(self) -> Wrapper:
        weights = Weights("projector")
        weights.add_safetensors(self.path("projector_path"))
        widths = [int(self.whisper_config["d_model"]), self.spec.hidden]
        return attach(hollow(lambda: Projector(widths, frames=self.frames)), weights)

    @property
    def frames(self) -> int:
        return int(self.whisper_config["max_source_positions"])

    def decoder(self) -> Wrapper:
        return llm_files.decoder(self.spec, self.llm_weights, None)

    def checkpoint(self) -> Checkpoint:
        text = tokenizer_files.tokenizer_json(self.path("llama_path"), [])
        end = self.spec.config.eos_token_id
        return Checkpoint(
            family="listener",
            parts={
                "mel": self.mel,
                "ears": self.whisper,  # a name of its own: there might be two of them
                "projector": self.projector,
                "decoder": self.decoder,
            },
            made_by={"ears": "whisper"},
            embedding=lambda: self.llm_weights[llm_files.TABLE],
            tokenizer_json=Tokenizer.from_str(text).to_str(),
            facts=Facts(
                prompt=PromptFacts(
                    turn="{clips}{}",
                    clip=PLACEHOLDER,
                    placeholder=PLACEHOLDER,
                    tasks={"transcribe": "the quick brown fox"},
                ),
                tokens=TokenFacts(None, (end,)),
                generation={"max_new_tokens": 12},
                audio=AudioFacts(RATE, "mean", 400, self.window_samples, "each"),
                dimensions=llm_files.dimensions(self.spec, audio_tokens=self.frames),
            ),
        )
