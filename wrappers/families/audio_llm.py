"""audio-llm (github.com/cdreetz/audio-llama): Whisper, two linear layers and a norm, Llama.

Training saves a `checkpoint.pt` with the projector and a LoRA of its own layout; Whisper and Llama
stay what they were. A `config.yaml` names the three as the original's command line does:

    audio_llm:
      llama_path: Llama-3.2-3B-Instruct
      whisper_path: whisper-large-v3-turbo
      checkpoint_path: checkpoints/final_checkpoint/checkpoint.pt
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from alm.errors import BadCheckpoint
from alm.facts import AudioFacts, Facts, PromptFacts
from wrappers import Checkpoint, Wrapper
from wrappers.bridges.projector import Projector
from wrappers.checkpoint import llm_files
from wrappers.checkpoint.adapters import adapter_faults
from wrappers.checkpoint.audio_llm_files import (
    CLOSE,
    OPEN,
    PATHS,
    SECTION,
    TASKS,
    AudioFiles,
    around,
)
from wrappers.checkpoint.llm_files import TABLE
from wrappers.checkpoint.salmonn_keys import strange
from wrappers.checkpoint.text import thoughts
from wrappers.checkpoint.weights.fit import faults, unknown
from wrappers.checkpoint.weights.hollow import attach, hollow
from wrappers.checkpoint.yaml_config import config_file, recognised, refuse_all
from wrappers.encoders import whisper
from wrappers.frontends.mel import RATE

LOOKS_LIKE = f"a config.yaml with a section `{SECTION}` ({', '.join(PATHS)})"

LEAST_SAMPLES = 400  # one window of the mel; Whisper fills any clip with zeros to its own length
PLACEHOLDER = "<AudioHere>"
# What the original gives to `generate`.
ORIGINAL = {"max_new_tokens": 256, "do_sample": True, "temperature": 0.7, "top_p": 0.9}
# Convolutions that the original's projector declares and never calls.
UNUSED = (r"^projector\.conv[123]\.",)
ROWS = 8192  # of the table summed at a time


def recognises(path: Path) -> bool:
    """Whether `path` is, or holds, a config.yaml with our section."""
    return recognised(path, lambda c: isinstance(c, dict) and SECTION in c, [f"{SECTION}:"])


def load(path: Path) -> Checkpoint:
    """Take the checkpoint apart; nothing large is read before its part is loaded.

    Raises:
        MissingFile: files or folders that the config names, all of them at once.
        BadCheckpoint: weights missing, misshapen or unknown (all named at once), or parts whose
            widths do not fit each other.
    """
    return AudioLlm(config_file(path)).checkpoint()


class AudioLlm(AudioFiles):
    """The checkpoint taken apart."""

    def projector(self) -> Wrapper:
        return attach(self._bridge(), self.trained.under("projector."))

    def _bridge(self) -> Projector:
        frames = int(self.whisper_config["max_source_positions"])
        return hollow(lambda: Projector(self.widths, frames=frames, norm=True))

    def decoder(self) -> Wrapper:
        return llm_files.decoder(self.spec, self.llm_weights, self.adapter)

    def embedding(self) -> Tensor:
        """The table [vocab + added, hidden] as the LLM uses it.

        The original leaves the added rows to transformers' resize_token_embeddings, which since
        4.46 draws them around the mean of the others with 1e-9 of their covariance: here they are
        the mean. `lm_head` keeps the LLM's own rows. The original's has two more, never trained,
        and an answer that held one of them would be read without it.
        """
        table = llm_files.adapted(self.spec, self.llm_weights, self.adapter)[TABLE]
        if self.added:
            sums = torch.stack([piece.double().sum(0) for piece in table.split(ROWS)])
            mean = (sums.sum(0) / len(table)).to(table.dtype)  # another would widen the whole table
            table = torch.cat((table, mean.expand(self.added, -1)))
        return llm_files.scaled(table, self.spec)

    # --- words

    def _prompt(self) -> PromptFacts:
        """The audio comes first, and the text behind it as the tokenizer gives it alone."""
        before, after = around(self.tokenizer)
        return PromptFacts(
            turn=f"{{clips}}{before}{{}}{after}",
            clip=OPEN + PLACEHOLDER + CLOSE,
            placeholder=PLACEHOLDER,
            end=self.tokenizer.id_to_token(self.tokens.eos[0]) or "",
            tasks=TASKS,
            joined=(TASKS["transcribe"],),
            thought=thoughts.in_tokenizer(self.tokenizer.to_str()),
        )

    def _generation(self) -> dict[str, Any]:
        """What the original gives to `generate`; the rest comes from its LLM's folder."""
        return self.generation(ORIGINAL, self.section("generate"), 256)

    # --- the whole

    def check(self) -> None:
        """Name everything that is missing, misshapen or does not fit, at once."""
        refuse_all(partial(self.path, key) for key in PATHS)
        refuse_all(
            (
                lambda: self.trained,
                lambda: self.widths,
                lambda: self.whisper_weights,
                lambda: self.window_samples,
                lambda: hollow(lambda: whisper.build(self.whisper_config)),
                lambda: self.llm_weights,
                lambda: self.tokens,
                self._generation,
            )
        )
        if wrong := self._faults():
            raise BadCheckpoint("; ".join(wrong))

    def _check_keys(self) -> None:
        """Refuse the keys of the config that nothing reads."""
        wrong = strange(self.config, (SECTION, "generate", "licence"), "section")
        wrong += strange(self.section(SECTION), PATHS, "key")
        if wrong:
            raise BadCheckpoint(f"{self.file} says what is not known here: {'; '.join(wrong)}")

    def _faults(self) -> list[str]:
        speech, where = hollow(lambda: whisper.build(self.whisper_config)), self.trained.where
        wrong = faults(speech, self.whisper_weights.shapes, self.whisper_weights.where)
        misfits = [
            f"{self.path(key)} is {want} wide, but {where} was trained with {what} of {was}"
            for key, want, what, was in (
                ("whisper_path", self.whisper_config["d_model"], "a Whisper", self.widths[0]),
                ("llama_path", self.spec.hidden, "an LLM", self.widths[-1]),
            )
            if want != was
        ]
        wrong += misfits
        wrong += faults(self._bridge(), self.trained.under("projector.").shapes, where)
        wrong += llm_files.faults(self.spec, self.llm_weights)
        wrong += self._unknown()
        tensors = self.trained.under("lora_layers.").shapes
        flat = [n for n, shape in tensors.items() if len(shape) != 2]
        wrong += [f"{where}: {name} is no matrix" for name in flat]
        if not flat and not misfits and self.adapter:  # else they say why it does not fit
            wrong += adapter_faults.faults(llm_files.with_table(self.spec), self.adapter)
        return wrong

    def _unknown(self) -> list[str]:
        """What no part takes of the checkpoint."""
        ours = {f"projector.{name}" for name in self._bridge().state_dict()}
        lora = {n for n in self.trained.shapes if n.startswith("lora_layers.")}
        return unknown(self.trained, ours | lora, UNUSED)

    def checkpoint(self) -> Checkpoint:
        self._check_keys()
        self.check()
        parts: dict[str, Callable[[], Wrapper]] = {
            "mel": self.mel,
            "whisper": self.whisper,
            "projector": self.projector,
            "decoder": self.decoder,
        }
        spec = self.spec
        return Checkpoint(
            family=SECTION,
            parts=parts,
            embedding=self.embedding,
            tokenizer_json=thoughts.spelled(self.tokenizer.to_str(), self._prompt().thought),
            facts=Facts(
                prompt=self._prompt(),
                tokens=self.tokens,
                generation=self._generation(),
                audio=AudioFacts(RATE, "mean", LEAST_SAMPLES, self.window_samples, "each"),
                dimensions=llm_files.dimensions(
                    spec,
                    audio_tokens=int(self.whisper_config["max_source_positions"]),
                    table=spec.vocab + self.added,
                ),
                source={
                    "config": self.file.name,
                    "llm": spec.config.model_type,
                    "adapter": self.adapter.kind.name if self.adapter else "none",
                    "fingerprint": self.fingerprint,
                },
                licence=self.section("licence"),
            ),
            notes=self._notes(),
        )

    def _notes(self) -> tuple[str, ...]:
        """What was found and left out, for the person who exports."""
        notes: list[str] = [*self.spec.found]
        if self.added:
            notes.append(
                f"the embeddings of {OPEN} and {CLOSE} are in no file: they were random in "
                "training and never trained; exported is the mean of the LLM's table, which is "
                "what transformers draws them around"
            )
        return tuple(notes)
