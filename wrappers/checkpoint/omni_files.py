"""A Hugging Face folder of a Qwen Omni model, of which the thinker is taken: it hears and reads.

The folder is the thinker's alone or the whole model's. What sees and what speaks are left out.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from alm.errors import BadCheckpoint
from alm.facts import PromptFacts
from wrappers.checkpoint import limits
from wrappers.checkpoint.hf import Folder
from wrappers.checkpoint.hf_files import BRIDGE, LLM, TOWER
from wrappers.checkpoint.plain_files import no_model, read_json
from wrappers.checkpoint.text import chat_template
from wrappers.checkpoint.text.template_files import named_token

SECTION = "thinker_config"  # of the whole model's config
PREFIX = "thinker."  # of the names of its weights
SIGHT = "visual."
# How transformers names the parts inside of `model.`, where older folders have the LLM alone.
PARTS = ("audio_tower.", "visual.", "language_model.")
PLAIN = ("default", "mrope")  # kinds of rotary embedding that are one where all ids are equal
TALKERS = "talker_"  # begins the names of decoding settings of what speaks
# No file of a checkpoint names tasks: the words are ours, the names those of the other families.
TASKS = {
    "transcribe": "Transcribe the speech.",
    "describe": "Describe the audio.",
    "translate_en": "Translate the speech into English.",
    "translate_zh": "Translate the speech into Chinese.",
    "emotion": "What is the emotion of the speaker?",
    "lyrics": "Write down the lyrics of the song.",
    "music": "Describe the music.",
}
JOINED = ("transcribe", "translate_en", "translate_zh", "lyrics")


class OmniFolder(Folder):
    """The thinker taken apart; a family adds its tower, its spectrogram and its LLM."""

    thinker: str  # the thinker's model_type
    thinker_class: type[Any]  # transformers' config of it
    text_type: str  # the model_type of its LLM
    text_class: type[Any]  # transformers' config of the same LLM without M-RoPE
    sections: tuple[int, ...]  # what transformers takes where mrope_section is left out
    speech: tuple[str, ...]  # begins the names of weights that speak
    most_new = 1024  # `thinker_max_new_tokens` of transformers' own `generate`

    @cached_property
    def config(self) -> Any:
        """The thinker's config, also of the whole model's folder.

        Raises:
            BadCheckpoint: it is none, or sizes are out of their limits.
        """
        plain = self.plain
        if plain.get("model_type") == self.thinker:
            return super().config
        theirs = plain.get(SECTION)
        if not isinstance(theirs, dict):
            raise BadCheckpoint(f"{self.file} lacks {SECTION}, the section on what hears and reads")
        limits.check(theirs, f"{self.file}: {SECTION}")
        try:
            return self.thinker_class.from_dict(theirs)
        except Exception as error:  # transformers raises what its dataclasses raise
            raise no_model(f"{self.file}: {SECTION}", error) from error

    @cached_property
    def text_config(self) -> Any:
        """The LLM's config with plain rotary parameters.

        M-RoPE turns three parts of a head by three positions of their own. Of text and of sound all
        three are equal, and run on by one from row to row: `get_rope_index` of transformers has
        others for images and videos alone, which no prompt here can hold.

        Raises:
            BadCheckpoint: the parts are not a head.
        """
        theirs = self.config.text_config
        if theirs.model_type != self.text_type:
            raise BadCheckpoint(
                f"{self.file} says text_config.model_type: {theirs.model_type!r:.80}; known is "
                f"{self.text_type}"
            )
        said = {k: v for k, v in theirs.to_dict().items() if k not in ("model_type", "dtype")}
        rope = dict(said.get("rope_parameters") or {})
        head_dim = said.get("head_dim") or said["hidden_size"] // said["num_attention_heads"]
        parts = rope.pop("mrope_section", self.sections)
        if not _shares(parts, head_dim // 2):
            raise BadCheckpoint(
                f"{self.file} says mrope_section: {str(parts)[:80]}, which do not add up to the "
                f"{head_dim // 2} pairs of a head of {head_dim}"
            )
        rope.pop("type", None)  # an older name of rope_type, which transformers has read by now
        if rope.get("rope_type", "default") in PLAIN:
            rope["rope_type"] = "default"
        said["rope_parameters"] = rope
        return self.text_class(**said)

    @property
    def tied(self) -> bool:
        """The head is the whole model's, and so is the setting."""
        return bool(self.config.tie_word_embeddings)

    def published(self, name: str) -> str:
        """See `Files.published`: of the whole model, of the thinker alone, old and new."""
        name = name.removeprefix(PREFIX)
        inner = name.removeprefix("model.")
        if inner != name and not inner.startswith(PARTS):
            return LLM + name
        if inner.startswith((*self.speech, SIGHT)):
            return inner
        published = super().published(name)
        layer = published.removeprefix(TOWER)
        return BRIDGE + layer if layer.startswith(self._bridged) else published

    @property
    def _bridged(self) -> tuple[str, ...]:
        """Begins the names, in the tower, of what is a part of its own here."""
        return tuple(f"{name}." for name in self.bridge.values())

    def aliases(self, module: str) -> tuple[str, ...]:
        """See `Files.aliases`: with and without the prefix of the whole model."""
        layer = module.removeprefix(BRIDGE)
        theirs = TOWER + layer if f"{layer}.".startswith(self._bridged) else module
        inner = (*super().aliases(theirs), theirs.removeprefix(LLM))
        return (*inner, *(PREFIX + name for name in inner))

    @cached_property
    def generation_config(self) -> tuple[Path, dict[str, Any]]:
        """See `Files.generation_config`; the settings of what speaks are left out with it."""
        file, plain = super().generation_config
        return file, {name: plain[name] for name in plain if not name.startswith(TALKERS)}

    @property
    def audio_token(self) -> int:
        """The token that stands for a clip's embeddings."""
        return int(self.config.audio_token_id)

    def prompt(self, tokenizer: Tokenizer) -> PromptFacts:
        placeholder = self.placeholder(tokenizer, self.audio_token)
        said = self.path / "tokenizer_config.json"
        named = named_token(read_json(said) if said.is_file() else {}, "audio_token")
        if named not in (None, placeholder):
            raise BadCheckpoint(
                f"{self.path} has {placeholder!r:.80} for audio in its config and {named!r:.80} in "
                "its tokenizer"
            )
        template = chat_template.template(self.path, placeholder)
        if template is None:
            raise BadCheckpoint(f"{self.path} holds no chat template that knows {placeholder}")
        joined = tuple(sorted(TASKS[name] for name in JOINED))
        return replace(template.prompt(placeholder), tasks=TASKS, joined=joined)

    def notes(self) -> tuple[str, ...]:
        """See `Folder.notes`."""
        names = [self.published(name) for name in self._stored.shapes]
        speech = sum(name.startswith(self.speech) for name in names)
        sight = sum(name.startswith(SIGHT) for name in names)
        left = f"{sight} weights of images and videos and {speech} of the talker and its sound"
        more = f"{left} are left out: sound and text go in here, and text comes out"
        return (*super().notes(), *([more] if sight or speech else []))


def _shares(parts: Any, pairs: int) -> bool:
    """Whether these are whole numbers that add up to so many pairs."""
    whole = isinstance(parts, list | tuple) and all(type(n) is int and n >= 0 for n in parts)
    return whole and sum(parts) == pairs
