"""Voxtral (Liu et al. 2025): a Whisper, four frames side by side through two layers, a Llama.

A clip of any length is encoded as one: padded to a multiple of 30 s, its loudest value that of the
whole, each window 375 embeddings, all of them one after the other in the prompt. There is no chat
template; what mistral-common writes is written here.
"""

from __future__ import annotations

from pathlib import Path

from tokenizers import Tokenizer

from alm.errors import BadCheckpoint
from alm.facts import PromptFacts
from wrappers import Checkpoint, Wrapper
from wrappers.bridges.projector import Projector
from wrappers.checkpoint.hf import Folder
from wrappers.checkpoint.model_type import model_type
from wrappers.frontends import mel

LOOKS_LIKE = "a Hugging Face folder whose config.json says model_type: voxtral"

BOS, EOS = "<s>", "</s>"
BEGIN, END, BEGIN_AUDIO, TRANSCRIBE = "[INST]", "[/INST]", "[BEGIN_AUDIO]", "[TRANSCRIBE]"
# Transcription is no question: nothing is between clip and [/INST], and the mode comes after it.
PLAIN = f"{BEGIN}{{clips}}{END}{{}}"
LANGUAGES = {  # those that Voxtral was made for
    "de": "German",
    "en": "English",
    "es": "Spanish",
    "fr": "French",
    "hi": "Hindi",
    "it": "Italian",
    "nl": "Dutch",
    "pt": "Portuguese",
}
# No file of a checkpoint names tasks: the words are ours, the names those of the other families.
QUESTIONS = {
    "describe": "Describe the audio.",
    "emotion": "What is the emotion of the speaker?",
    "summary": "Summarize what is said.",
} | {f"translate_{code}": f"Translate the speech into {name}." for code, name in LANGUAGES.items()}


def recognises(path: Path) -> bool:
    """Whether `path` is, or holds, a config.json of Voxtral."""
    return model_type(path) == Voxtral.family


def load(path: Path) -> Checkpoint:
    """Take the checkpoint apart; nothing large is read before its part is loaded.

    Raises:
        MissingFile: no weights or no tokenizer in the folder.
        BadCheckpoint: weights missing or misshapen (all named at once), settings that contradict
            each other, or a tokenizer without the tokens of a conversation.
    """
    folder = Voxtral(path)
    return folder.checkpoint(audio_tokens=lambda: folder.rows, least_samples=1, long="joined")


class Voxtral(Folder):
    """The checkpoint taken apart."""

    family = "voxtral"
    bridge = {"layers.0": "linear_1", "layers.2": "linear_2"}

    def mel(self) -> Wrapper:
        mels = int(self.whisper_config["num_mel_bins"])
        return mel.Mel(mels, self.window_samples, rows=self.rows)

    @property
    def stack(self) -> int:
        """Frames that are one row: as many as are as wide as the tower's middle.

        Raises:
            BadCheckpoint: that is no whole number.
        """
        width, wide = (int(self.whisper_config[k]) for k in ("d_model", "encoder_ffn_dim"))
        if wide % width or self.frames % (wide // width):
            raise BadCheckpoint(
                f"{self.file} says audio_config.intermediate_size: {wide}, which should be the "
                f"width of a few frames of {width}, a whole number of times in {self.frames}"
            )
        return wide // width

    @property
    def rows(self) -> int:
        """Embeddings of a window."""
        return self.frames // self.stack

    def build_projector(self) -> Projector:
        return Projector(
            [int(self.whisper_config["encoder_ffn_dim"]), self.spec.hidden, self.spec.hidden],
            frames=self.frames,
            stack=self.stack,
            bias=False,
            activation=self.config.projector_hidden_act,
        )

    def prompt(self, tokenizer: Tokenizer) -> PromptFacts:
        placeholder = self.placeholder(tokenizer, self.config.audio_token_id)
        self.tokens_there(tokenizer, (BOS, EOS, BEGIN, END, BEGIN_AUDIO, TRANSCRIBE))
        modes = {"transcribe": TRANSCRIBE}
        modes |= {f"transcribe_{code}": f"lang:{code}{TRANSCRIBE}" for code in LANGUAGES}
        return PromptFacts(
            start=BOS,
            turn=f"{BEGIN}{{clips}}{{}}{END}",
            turns=dict.fromkeys(modes, PLAIN),
            clip=BEGIN_AUDIO + placeholder,
            placeholder=placeholder,
            end=EOS,
            literal=True,  # mistral-common encodes a user's words apart: no control tokens
            tasks=modes | QUESTIONS,
        )
