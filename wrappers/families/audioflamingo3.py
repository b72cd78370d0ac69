"""Audio Flamingo 3 (Goel et al. 2025): Qwen2-Audio's tower, two linear layers, a Qwen2.

A clip of up to 20 windows of 30 s is heard as one, 25 embeddings a second; what is longer is
answered in pieces of that length. A conversation is about one clip, which stands before the words.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from tokenizers import Tokenizer

from alm.errors import BadCheckpoint
from alm.facts import PromptFacts
from wrappers import Checkpoint, Wrapper
from wrappers.bridges.projector import Projector
from wrappers.checkpoint.hf_windows import WindowedFolder
from wrappers.checkpoint.model_type import model_type
from wrappers.encoders import whisper

LOOKS_LIKE = "a Hugging Face folder whose config.json says model_type: audioflamingo3"

BEGIN, END, SOUND = "<|im_start|>", "<|im_end|>", "<sound>"
# The template of the published folder writes a message's clip first, wherever it is given.
PROMPT = PromptFacts(
    start=f"{BEGIN}system\nYou are a helpful assistant.{END}\n",
    turn=f"{BEGIN}user\n{{clips}}{{}}{END}\n{BEGIN}assistant\n",
    clip=SOUND,
    placeholder=SOUND,
    end=f"{END}\n",
    one_clip=True,
)
# The words are ours, the names those of the other families.
TASKS = {
    "describe": "Describe the audio.",
    "emotion": "What is the emotion of the speaker?",
    "music": "Describe the music.",
    "summary": "Summarize what is said.",
}


def recognises(path: Path) -> bool:
    """Whether `path` is, or holds, a config.json of Audio Flamingo 3."""
    return model_type(path) == AudioFlamingo3.family


def load(path: Path) -> Checkpoint:
    """Take the checkpoint apart; nothing large is read before its part is loaded.

    Raises:
        MissingFile: no weights or no tokenizer in the folder.
        BadCheckpoint: weights missing or misshapen (all named at once), settings that contradict
            each other, a tokenizer without the tokens of a prompt, or another chat template.
    """
    return AudioFlamingo3(path).taken_apart()


class AudioFlamingo3(WindowedFolder):
    """The checkpoint taken apart."""

    family = "audioflamingo3"
    bridge = {"layers.0": "linear_1", "layers.2": "linear_2"}
    stack = 2
    counted = True
    asked = "Transcribe the input speech."
    longest = 600
    tokens_of_prompt = (BEGIN, END, SOUND)

    @property
    def tied(self) -> bool:
        """transformers ties this model's head to nothing, whatever a config says."""
        return False

    def build_tower(self) -> Wrapper:
        positions = int(self.whisper_config["max_source_positions"])
        if positions != self.frames:
            raise BadCheckpoint(
                f"{self.file} says audio_config.max_source_positions: {positions}, and the "
                f"extractor's windows are {self.frames} frames"
            )
        return whisper.build(self.whisper_config, windowed=True)

    def build_projector(self) -> Projector:
        width, hidden = int(self.whisper_config["d_model"]), self.spec.hidden
        return Projector(
            [width, hidden, hidden],
            frames="rows",
            bias=self.config.projector_bias,
            activation=self.config.projector_hidden_act,
        )

    def prompt(self, tokenizer: Tokenizer) -> PromptFacts:
        words = self.request
        return self.known_prompt(
            tokenizer, replace(PROMPT, tasks={"transcribe": words} | TASKS, joined=(words,))
        )
