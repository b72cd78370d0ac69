"""GLM-ASR (Z.ai 2025): a Whisper with rotary positions, four frames side by side, a Llama.

A clip of up to 21 windows of 30 s is heard as one, 12.5 embeddings a second; what is longer is
answered in pieces of that length. A conversation is about one clip.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from alm.errors import BadCheckpoint
from alm.facts import PromptFacts
from wrappers import Checkpoint, Wrapper
from wrappers.bridges.projector import Projector
from wrappers.checkpoint.hf_windows import WindowedFolder
from wrappers.checkpoint.model_type import model_type
from wrappers.encoders import glmasr

LOOKS_LIKE = "a Hugging Face folder whose config.json says model_type: glmasr"

USER, ANSWER, PAD = "<|user|>", "<|assistant|>", "<|pad|>"
BEGIN_AUDIO, END_AUDIO = "<|begin_of_audio|>", "<|end_of_audio|>"
# The template of the published folder: a user's words stand in a turn of their own behind a clip.
PROMPT = PromptFacts(
    turn=f"{USER}\n{{clips}}{{}}{ANSWER}\n",
    clip=f"{BEGIN_AUDIO}{PAD}{END_AUDIO}{USER}\n",
    placeholder=PAD,
    one_clip=True,
    trim="content",
)


def recognises(path: Path) -> bool:
    """Whether `path` is, or holds, a config.json of GLM-ASR."""
    return model_type(path) == GlmAsr.family


def load(path: Path) -> Checkpoint:
    """Take the checkpoint apart; nothing large is read before its part is loaded.

    Raises:
        MissingFile: no weights or no tokenizer in the folder.
        BadCheckpoint: weights missing or misshapen (all named at once), settings that contradict
            each other, a tokenizer without the tokens of a prompt, or another chat template.
    """
    return GlmAsr(path).taken_apart()


class GlmAsr(WindowedFolder):
    """The checkpoint taken apart."""

    family = tower = "glmasr"
    bridge = {"layers.0": "linear_1", "layers.2": "linear_2"}
    stack = 4  # transformers counts so, whatever the config says
    asked = "Please transcribe this audio into text"
    longest = 655
    tokens_of_prompt = (USER, ANSWER, BEGIN_AUDIO, END_AUDIO, PAD)

    @property
    def tower_config(self) -> dict[str, Any]:
        """The tower's sizes."""
        audio = self.audio_config
        return {name: getattr(audio, name, None) for name in glmasr.DEFAULTS}

    @property
    def tied(self) -> bool:
        """The head is the whole model's, and so is the setting."""
        return bool(self.config.tie_word_embeddings)

    def build_tower(self) -> Wrapper:
        return glmasr.build(self.tower_config, self.frames)

    def build_projector(self) -> Projector:
        audio, hidden = self.audio_config, self.spec.hidden
        if audio.intermediate_size != self.stack * audio.hidden_size:
            raise BadCheckpoint(
                f"{self.file} says audio_config.intermediate_size: {audio.intermediate_size}, and "
                f"a row is {self.stack} frames of {audio.hidden_size}"
            )
        return Projector(
            [audio.intermediate_size, 2 * hidden, hidden],
            frames=self.frames,
            stack=self.stack,
            activation=self.config.projector_hidden_act,
        )

    def prompt(self, tokenizer: Tokenizer) -> PromptFacts:
        words = self.request
        return self.known_prompt(
            tokenizer,
            replace(PROMPT, tasks={"transcribe": words}, joined=(words,)),
        )
