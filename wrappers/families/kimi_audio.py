"""Kimi-Audio (Kimi Team 2025), sound in and text out: ids of sound and a Whisper, and a Qwen2.

A clip is heard twice: GLM-4-voice's tokenizer makes 12.5 ids a second, a Whisper frames, of which
four side by side become one row. The original sums both with the embedding of a blank of its second
stream, that of text. Every other position has a token in one stream and a blank in the other, so
that one table, of which every row has the blank's added, stands for both.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn

from alm.errors import BadCheckpoint
from alm.facts import PromptFacts, TokenFacts
from wrappers import Checkpoint, Wrapper
from wrappers.bridges.coded_projector import STACK, CodedProjector
from wrappers.checkpoint.hf_files import BRIDGE, LLM
from wrappers.checkpoint.kimi_files import FRAMES, MELS, UNUSED, VOICE, WINDOW, Files
from wrappers.checkpoint.llm_files import TABLE
from wrappers.checkpoint.model_type import config
from wrappers.checkpoint.text import generation_fields, kimi_tokens
from wrappers.checkpoint.weights.hollow import attach, hollow
from wrappers.checkpoint.weights.tensors import Weights
from wrappers.encoders import glm4_voice, whisper
from wrappers.frontends.nearest_code import NearestCode
from wrappers.frontends.voice_mel import VoiceMel
from wrappers.frontends.window_mel import WindowMel

LOOKS_LIKE = "a folder whose config.json says architectures: MoonshotKimiaForCausalLM"

ARCHITECTURE = "MoonshotKimiaForCausalLM"
LONGEST = 2048  # new tokens, where nothing sets it
SUM = math.sqrt(2)  # by which the original multiplies what it sums of a clip


def recognises(path: Path) -> bool:
    """Whether `path` is, or holds, a config.json of Kimi-Audio, whatever its model_type says."""
    plain = config(path)
    named = plain.get("architectures")
    known = isinstance(named, list) and ARCHITECTURE in named
    return known or plain.get("model_type") == "kimi_audio"


def load(path: Path) -> Checkpoint:
    """Take the checkpoint apart; nothing large is read before its part is loaded.

    Raises:
        MissingFile: no weights, no tiktoken.model, or no folder of a tower.
        BadCheckpoint: weights missing or misshapen, or settings that contradict each other or are
            not done here, all named at once.
    """
    return KimiAudio(path).taken_apart()


class KimiAudio(Files):
    """The checkpoint taken apart."""

    family = "kimi_audio"
    unused = UNUSED
    most_new = LONGEST

    @property
    def windows(self) -> int:
        """Windows that are heard as one: as many as the LLM's context holds."""
        return max(1, self.spec.context // (FRAMES // STACK))

    @cached_property
    def window_samples(self) -> int:
        """See `Files.window_samples`; of all windows that are heard as one."""
        return self.windows * WINDOW

    # --- parts

    def voice_mel(self) -> Wrapper:
        return VoiceMel(MELS, WINDOW, self.windows)

    def glm4_voice(self) -> Wrapper:
        return attach(hollow(self.build_voice), self.weights.under(VOICE))

    def nearest_code(self) -> Wrapper:
        ours, theirs = Weights(self.weights.where), self.weights.under(VOICE)
        book = "codebook.weight"
        ours.add("distance.weight", theirs.shapes[book], lambda: -2.0 * theirs[book].float())
        ours.add(
            "distance.bias",
            theirs.shapes[book][:1],
            lambda: theirs[book].double().square().sum(1).float(),
        )
        return attach(hollow(self.build_codes), ours)

    def mel(self) -> Wrapper:
        return WindowMel(MELS, WINDOW, stack=STACK, most=self.windows, filled=True)

    def projector(self) -> Wrapper:
        ours, theirs = Weights(self.weights.where), self.weights.under(BRIDGE)
        for name, shape in theirs.shapes.items():
            ours.add(name, shape, partial(self._adaptors, name))
        part = hollow(self.build_projector)
        ours.add("codes.weight", tuple(part.codes.weight.shape), self._codes)
        return attach(part, ours)

    def embedding(self) -> Tensor:
        """The table [vocab, hidden], to every row of which the blank's is added."""
        table = self.weights[LLM + TABLE].float()
        return table + table[self._blank].clone()

    def _adaptors(self, name: str) -> Tensor:
        weight = self.weights[BRIDGE + name]
        return weight.float() * SUM if name.startswith("layers.4.") else weight

    def _codes(self) -> Tensor:
        """Rows of the ids of sound [codes, hidden], as they are in the sum."""
        table, codes = self.weights[LLM + TABLE], self.voice_config["quantize_vocab_size"]
        rows = table[self.offset : self.offset + codes].float()
        return rows * SUM + table[self._blank].float()

    @property
    def _blank(self) -> int:
        return self.offset - kimi_tokens.COUNT + kimi_tokens.specials().index(kimi_tokens.BLANK)

    def build_tower(self) -> Wrapper:
        return whisper.build(self.whisper_config)

    def build_voice(self) -> glm4_voice.Glm4Voice:
        return glm4_voice.build(self.voice_config)

    def build_codes(self) -> NearestCode:
        sizes = self.voice_config
        return NearestCode(sizes["d_model"], sizes["quantize_vocab_size"], FRAMES // STACK)

    def build_projector(self) -> CodedProjector:
        return CodedProjector(
            self.whisper_config["d_model"],
            self.spec.hidden,
            self.voice_config["quantize_vocab_size"],
            eps=self.spec.eps,
            most=self.windows,
        )

    # --- the whole

    def _whole(self, tried: Callable[[Callable[[], nn.Module]], nn.Module]) -> nn.Module:
        """See `Folder._whole`; the codes of the bridge are rows of the LLM's table."""
        whole = super()._whole(tried)
        bridge = whole[BRIDGE[:-1]]  # pyright: ignore
        if isinstance(bridge, CodedProjector):
            del bridge.codes
        with torch.device("meta"):
            voice = tried(self.build_voice)
            if isinstance(voice, glm4_voice.Glm4Voice):
                sizes = self.voice_config
                voice.codebook = nn.Embedding(sizes["quantize_vocab_size"], sizes["d_model"])
        whole.add_module(VOICE[:-1], voice)
        return whole

    def taken_apart(self) -> Checkpoint:
        """See `Folder.checkpoint`; a clip of all windows is one, and a longer one is cut."""
        made = self.checkpoint(
            audio_tokens=lambda: self.windows * (FRAMES // STACK), least_samples=1, long="each"
        )
        parts: dict[str, Callable[[], Wrapper]] = {
            "voice_mel": self.voice_mel,
            "glm4_voice": self.glm4_voice,
            "nearest_code": self.nearest_code,
        }
        made_by = {"mel": "window_mel", "projector": "coded_projector"}
        return replace(made, parts=parts | made.parts, made_by=made_by)

    def notes(self) -> tuple[str, ...]:
        """See `Folder.notes`."""
        notes = list(super().notes())
        if self.left_out:
            notes.append(
                f"{self.left_out:,} weights of {self.path} say the answer aloud (mimo_layers, "
                "mimo_norm, mimo_output): they are left out, as the answer here is text"
            )
        if (self.path / generation_fields.FILE).is_file():
            notes.append(
                f"{self.path / generation_fields.FILE} is not followed, as the authors' own loop "
                "does not read it: decoding is greedy unless asked otherwise"
            )
        return tuple(notes)

    # --- words

    def tokenizer_json(self) -> str:
        """See `Folder.tokenizer_json`.

        Raises:
            BadCheckpoint: the config has other tokens around a clip, or codes at another id.
        """
        made, plain = kimi_tokens.tokenizer(self.path), self.plain
        wanted = {
            "kimia_token_offset": made.get_vocab_size(),
            "kimia_media_begin": made.token_to_id(kimi_tokens.OPEN),
            "kimia_media_end": made.token_to_id(kimi_tokens.CLOSE),
        }
        wrong = [
            f"{name} {plain[name]}, and with {kimi_tokens.FILE} it is {want}"
            for name, want in wanted.items()
            if plain.get(name, want) != want
        ]
        if wrong:
            raise BadCheckpoint(f"{self.file} says {'; '.join(wrong)}")
        return made.to_str()

    def generation(self) -> dict[str, Any]:
        """The authors' own: greedy, whatever generation_config.json says."""
        return generation_fields.defaults(
            where=self.file, vocab=self.spec.vocab, max_new_tokens=self.most_new
        )

    def tokens(self, tokenizer: Tokenizer, start: str) -> TokenFacts:
        """The end of an answer's text; penalties see the answer alone."""
        (end,) = tokenizer.encode(kimi_tokens.TEXT_END, add_special_tokens=False).ids
        return TokenFacts(None, (end,))

    def prompt(self, tokenizer: Tokenizer) -> PromptFacts:
        return kimi_tokens.prompt()
