"""Qwen3-ASR (Qwen team 2026): windows of 8 s of the clip's own length, two layers, a Qwen3.

A clip of up to 20 minutes is heard as one, 13 embeddings a second. The user's words are no question
but context, which goes into the system turn: names and terms that may be spoken. The answer begins
with the language that was heard, unless the prompt names it already.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from alm.errors import BadCheckpoint
from alm.facts import PromptFacts
from wrappers import Checkpoint, Wrapper
from wrappers.bridges.projector import Projector
from wrappers.checkpoint import qwen3_asr_authors
from wrappers.checkpoint.hf import Folder
from wrappers.checkpoint.model_type import config, model_type
from wrappers.checkpoint.plain_files import read_json
from wrappers.checkpoint.text import chat_template
from wrappers.encoders import qwen3_asr
from wrappers.frontends.clip_mel import ClipMel
from wrappers.frontends.mel import HOP, RATE

LOOKS_LIKE = "a Hugging Face folder whose config.json says model_type: qwen3_asr"

ALIGNER = "Qwen3ASRForTokenClassification"  # of the same model_type
LONGEST = 1200 * RATE  # samples heard as one; the authors' own software cuts there
LEAST = 8000  # samples; the extractor pads shorter clips with silence

SYSTEM, USER, ANSWER = "<|im_start|>system\n", "<|im_start|>user\n", "<|im_start|>assistant\n"
END = "<|im_end|>\n"
TURN = f"{SYSTEM}{{}}{END}{USER}{{clips}}{END}{ANSWER}"
BEGIN_AUDIO, END_AUDIO, WORDS = "<|audio_start|>", "<|audio_end|>", "<asr_text>"
# Those that the models were made for, as transformers' processor names them.
LANGUAGES = {
    **{"ar": "Arabic", "cs": "Czech", "da": "Danish", "de": "German", "el": "Greek"},
    **{"en": "English", "es": "Spanish", "fa": "Persian", "fi": "Finnish", "fil": "Filipino"},
    **{"fr": "French", "hi": "Hindi", "hu": "Hungarian", "id": "Indonesian", "it": "Italian"},
    **{"ja": "Japanese", "ko": "Korean", "mk": "Macedonian", "ms": "Malay", "nl": "Dutch"},
    **{"pl": "Polish", "pt": "Portuguese", "ro": "Romanian", "ru": "Russian", "sv": "Swedish"},
    **{"th": "Thai", "tr": "Turkish", "vi": "Vietnamese", "yue": "Cantonese", "zh": "Chinese"},
}


def recognises(path: Path) -> bool:
    """Whether `path` is, or holds, a config.json of Qwen3-ASR, the aligner's not among them."""
    return model_type(path) == Qwen3Asr.family and not aligns(path)


def aligns(path: Path) -> bool:
    """Whether a config.json is of the model that only finds the times of words."""
    plain = config(path)
    architectures = plain.get("architectures")
    named = isinstance(architectures, list) and ALIGNER in architectures
    return named or qwen3_asr_authors.aligns(plain)


def load(path: Path) -> Checkpoint:
    """Take the checkpoint apart; nothing large is read before its part is loaded.

    Raises:
        MissingFile: no weights or no tokenizer in the folder.
        BadCheckpoint: weights missing or misshapen (all named at once), settings that contradict
            each other, a tokenizer without the tokens of a prompt, or another chat template.
    """
    folder = Qwen3Asr(path)
    frames = LONGEST // HOP
    return folder.checkpoint(
        audio_tokens=lambda: qwen3_asr.rows_of(frames, folder.chunk),
        least_samples=LEAST,
        long="each",
    )


class Qwen3Asr(Folder):
    """The checkpoint taken apart."""

    family = "qwen3_asr"
    tower = "qwen3_asr"
    front = "clip_mel"
    bridge = {"layers.0": "linear_1", "layers.2": "linear_2"}

    @cached_property
    def config(self) -> Any:
        """transformers' config, also of a folder in the authors' own layout."""
        plain = read_json(self.file)
        if not qwen3_asr_authors.is_theirs(plain):
            return super().config
        return qwen3_asr_authors.config(plain, self.file)

    def published(self, name: str) -> str:
        """See `Files.published`."""
        return super().published(qwen3_asr_authors.published(name))

    @cached_property
    def tower_config(self) -> dict[str, Any]:
        """The tower's sizes; `scale_embedding` changes nothing in the original either."""
        audio = self.audio_config
        return {name: getattr(audio, name) for name in qwen3_asr.DEFAULTS}

    @property
    def tied(self) -> bool:
        """The head is the whole model's, and so is the setting."""
        return bool(self.config.tie_word_embeddings)

    @property
    def chunk(self) -> int:
        """Frames that the tower's convolutions take together."""
        return 2 * int(self.tower_config["n_window"])

    @cached_property
    def window_samples(self) -> int:
        """See `Files.window_samples`; the tower has none, and 20 minutes are the authors' bound."""
        wanted = {
            "feature_size": self.tower_config["num_mel_bins"],
            "n_window": self.tower_config["n_window"],
            "min_length": LEAST,
            "dither": 0.0,
            "padding_value": 0.0,
        }
        self.check_extractor(wanted)
        return LONGEST

    def mel(self) -> Wrapper:
        return ClipMel(int(self.tower_config["num_mel_bins"]), LEAST, LONGEST)

    def build_tower(self) -> Wrapper:
        return qwen3_asr.build(self.tower_config)

    def build_projector(self) -> Projector:
        width, out = self.check_width()
        return Projector(
            [width, width, out], frames="rows", activation=self.tower_config["activation_function"]
        )

    def prompt(self, tokenizer: Tokenizer) -> PromptFacts:
        placeholder = self.placeholder(tokenizer, self.config.audio_token_id)
        needed = (BEGIN_AUDIO, END_AUDIO, WORDS, "<|im_start|>", "<|im_end|>")
        missing = [text for text in needed if tokenizer.token_to_id(text) is None]
        if missing:
            raise BadCheckpoint(f"the tokenizer in {self.path} lacks {', '.join(missing)}")
        clip = BEGIN_AUDIO + placeholder + END_AUDIO
        template = chat_template.template(self.path, placeholder)
        if template is not None:
            plain = qwen3_asr_authors.is_theirs(read_json(self.file))
            template.check([_written(context, clip, plain) for context in _CONTEXTS])
        return PromptFacts(
            turn=TURN,
            clip=clip,
            placeholder=placeholder,
            single=True,
            tasks={"transcribe": ""},
            joined=("{}",),
            heading=f"language {{}}{WORDS}",
            languages=LANGUAGES,
        )


# Contexts of prompts that a folder's template must write as TURN has them.
_CONTEXTS = (None, "", "Names: Łukasz, Anna.", "  two\n lines \n")


def _written(context: str | None, clip: str, plain: bool) -> tuple[list[dict[str, Any]], str]:
    """The messages of the processor, and the prompt that they must become.

    `plain`: the context is a string, as the authors' package has it, not a list of parts.
    """
    audio = [{"type": "audio", "audio": "clip.wav"}]
    messages: list[dict[str, Any]] = [{"role": "user", "content": audio}]
    if context is not None:
        parts = [{"type": "text", "text": context}]
        messages.insert(0, {"role": "system", "content": context if plain else parts})
    return messages, TURN.replace("{clips}", clip).replace("{}", context or "")
