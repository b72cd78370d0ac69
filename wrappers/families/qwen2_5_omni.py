"""Qwen2.5-Omni (Xu et al. 2025), its thinker: a Whisper in windows of 2 s, one layer, a Qwen2.5.

Sound comes in and text goes out, 25 embeddings a second. A clip up to the extractor's window, five
minutes in the published models, is heard as one; there may be several in a conversation. What sees
and the talker, which speaks, are left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from transformers import Qwen2_5OmniThinkerConfig, Qwen2Config

from alm.errors import BadCheckpoint
from alm.facts import MOST_SAMPLES, PromptFacts
from wrappers import Checkpoint, Wrapper
from wrappers.bridges.projector import Projector
from wrappers.checkpoint import limits, llm_files
from wrappers.checkpoint.hf import Folder
from wrappers.checkpoint.hf_files import BRIDGE, FFT, LLM, TOWER
from wrappers.checkpoint.model_type import model_type
from wrappers.checkpoint.plain_files import no_model, read_json
from wrappers.checkpoint.text import chat_template
from wrappers.encoders import qwen2_5_omni
from wrappers.frontends.masked_mel import MaskedMel
from wrappers.frontends.mel import HOP, RATE

LOOKS_LIKE = "a Hugging Face folder whose config.json says model_type: qwen2_5_omni(_thinker)"

THINKER = "qwen2_5_omni_thinker"
SECTION = "thinker_config"  # of the whole model's config
PREFIX = "thinker."  # of the names of its weights
SPEECH, SIGHT = ("talker.", "token2wav."), "visual."
# How transformers names the parts inside of `model.`, where older folders have the LLM alone.
PARTS = ("audio_tower.", "visual.", "language_model.")
PLAIN = ("default", "mrope")  # kinds of rotary embedding that are one where all ids are equal
MROPE = [16, 24, 24]  # what transformers takes where mrope_section is left out
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


def recognises(path: Path) -> bool:
    """Whether `path` is, or holds, a config.json of Qwen2.5-Omni or of its thinker alone."""
    return model_type(path) in (Qwen25Omni.family, THINKER)


def load(path: Path) -> Checkpoint:
    """Take the checkpoint apart; nothing large is read before its part is loaded.

    Raises:
        MissingFile: no weights or no tokenizer in the folder.
        BadCheckpoint: weights missing or misshapen (all named at once), settings that contradict
            each other, or a chat template that is no start, turns and an end.
    """
    folder = Qwen25Omni(path)
    # One frame of the spectrogram's transform; from 321 samples on that is one embedding.
    return folder.checkpoint(
        audio_tokens=lambda: qwen2_5_omni.rows_of(folder.window_samples // HOP),
        least_samples=FFT,
        long="each",
    )


class Qwen25Omni(Folder):
    """The checkpoint taken apart."""

    family = tower = "qwen2_5_omni"
    tower_type = "qwen2_5_omni_audio_encoder"
    front = "masked_mel"
    bridge = {"layers.0": "proj"}
    most_new = 1024  # `thinker_max_new_tokens` of transformers' own `generate`
    unused = (
        *llm_files.UNUSED,
        # An embedding that transformers has and computes nothing with.
        rf"^{TOWER}audio_bos_eos_token\.weight$",
        rf"^({'|'.join((SIGHT, *SPEECH))})",
    )

    @cached_property
    def config(self) -> Any:
        """The thinker's config, also of the whole model's folder.

        Raises:
            BadCheckpoint: it is none, or sizes are out of their limits.
        """
        plain = self.plain
        if plain.get("model_type") == THINKER:
            return super().config
        theirs = plain.get(SECTION)
        if not isinstance(theirs, dict):
            raise BadCheckpoint(f"{self.file} lacks {SECTION}, the section on what hears and reads")
        limits.check(theirs, f"{self.file}: {SECTION}")
        try:
            return Qwen2_5OmniThinkerConfig.from_dict(theirs)
        except Exception as error:  # transformers raises what its dataclasses raise
            raise no_model(f"{self.file}: {SECTION}", error) from error

    @cached_property
    def text_config(self) -> Any:
        """A Qwen2's with plain rotary parameters.

        M-RoPE turns three parts of a head by three positions of their own. Of text and of sound all
        three are equal, and run on by one from row to row: `get_rope_index` of transformers has
        others for images and videos alone, which no prompt here can hold.

        Raises:
            BadCheckpoint: the parts are not a head.
        """
        theirs = self.config.text_config
        if theirs.model_type != "qwen2_5_omni_text":
            raise BadCheckpoint(
                f"{self.file} says text_config.model_type: {theirs.model_type!r:.80}; known is "
                "qwen2_5_omni_text"
            )
        said = {k: v for k, v in theirs.to_dict().items() if k not in ("model_type", "dtype")}
        rope = dict(said.get("rope_parameters") or {})
        head_dim = said.get("head_dim") or said["hidden_size"] // said["num_attention_heads"]
        parts = rope.pop("mrope_section", MROPE)
        if not _shares(parts, head_dim // 2):
            raise BadCheckpoint(
                f"{self.file} says mrope_section: {str(parts)[:80]}, which do not add up to the "
                f"{head_dim // 2} pairs of a head of {head_dim}"
            )
        rope.pop("type", None)  # an older name of rope_type, which transformers has read by now
        if rope.get("rope_type", "default") in PLAIN:
            rope["rope_type"] = "default"
        said["rope_parameters"] = rope
        return Qwen2Config(**said)

    @property
    def tied(self) -> bool:
        """The head is the whole model's, and so is the setting."""
        return bool(self.config.tie_word_embeddings)

    @cached_property
    def tower_config(self) -> dict[str, Any]:
        """The tower's sizes; `scale_embedding` changes nothing in the original either."""
        audio = self.audio_config
        return {name: getattr(audio, name) for name in qwen2_5_omni.DEFAULTS}

    def published(self, name: str) -> str:
        """See `Files.published`: of the whole model, of the thinker alone, old and new."""
        name = name.removeprefix(PREFIX)
        inner = name.removeprefix("model.")
        if inner != name and not inner.startswith(PARTS):
            return LLM + name
        if inner.startswith((*SPEECH, SIGHT)):
            return inner
        published = super().published(name)
        layer = published.removeprefix(f"{TOWER}proj.")
        return published if layer == published else f"{BRIDGE}proj.{layer}"

    def aliases(self, module: str) -> tuple[str, ...]:
        """See `Files.aliases`: with and without the prefix of the whole model."""
        theirs = module.replace(f"{BRIDGE}proj", f"{TOWER}proj", 1)
        inner = (*super().aliases(theirs), theirs.removeprefix(LLM))
        return (*inner, *(PREFIX + name for name in inner))

    @cached_property
    def window_samples(self) -> int:
        """See `Files.window_samples`; the tower has none, and the extractor's is the bound.

        Raises:
            BadCheckpoint: the extractor's settings are of another spectrogram, all named.
        """
        mels = self.tower_config["num_mel_bins"]
        settings = self.check_extractor({"feature_size": mels, "dither": 0.0, "padding_value": 0.0})
        seconds, side = settings.get("chunk_length", 30), settings.get("padding_side", "right")
        most = MOST_SAMPLES // RATE
        wrong = []
        if type(seconds) is not int or not 0 < seconds <= most:
            wrong.append(
                f"chunk_length {str(seconds)[:80]}; it must be a whole number of seconds, at most "
                f"{most}"
            )
        if side != "right":
            wrong.append(
                f"padding_side {str(side)[:80]!r}; known is 'right', silence behind a clip"
            )
        if wrong:
            raise BadCheckpoint(f"{self.path} has an extractor of {', '.join(wrong)}")
        return seconds * RATE

    def mel(self) -> Wrapper:
        return MaskedMel(int(self.tower_config["num_mel_bins"]), self.window_samples)

    def build_tower(self) -> Wrapper:
        return qwen2_5_omni.build(self.tower_config)

    def build_projector(self) -> Projector:
        width, out = int(self.tower_config["d_model"]), int(self.tower_config["output_dim"])
        if out != self.spec.hidden:
            raise BadCheckpoint(
                f"{self.file} says audio_config.output_dim: {out}, and the LLM's rows are "
                f"{self.spec.hidden} wide"
            )
        return Projector([width, out], frames="rows")

    def prompt(self, tokenizer: Tokenizer) -> PromptFacts:
        placeholder = self.placeholder(tokenizer, self.config.audio_token_index)
        said = self.path / "tokenizer_config.json"
        named = _processors_token(read_json(said) if said.is_file() else {})
        if named not in ("", placeholder):
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
        names = self.weights.shapes
        speech = sum(name.startswith(SPEECH) for name in names)
        sight = sum(name.startswith(SIGHT) for name in names)
        left = f"{sight} weights of images and videos and {speech} of the talker and its sound"
        more = f"{left} are left out: sound and text go in here, and text comes out"
        return (*super().notes(), *([more] if sight or speech else []))


def _shares(parts: Any, pairs: int) -> bool:
    """Whether these are whole numbers that add up to so many pairs."""
    whole = isinstance(parts, list | tuple) and all(type(n) is int and n >= 0 for n in parts)
    return whole and sum(parts) == pairs


def _processors_token(said: Mapping[str, Any]) -> str:
    """What transformers' processor replaces in a text; "" where no file says it."""
    extra = said.get("extra_special_tokens")
    token = (extra.get("audio_token") if isinstance(extra, dict) else None) or said.get(
        "audio_token"
    )
    token = token.get("content") if isinstance(token, dict) else token
    return token if isinstance(token, str) else ""
