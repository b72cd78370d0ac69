"""Granite Speech (IBM 2025): a conformer in blocks, a Q-Former in windows, a Granite.

A clip of any length is heard as one, 10 embeddings a second, as far as the LLM's context holds it.
In versions 3.x the LLM has a LoRA that the original switches on where there is sound: it is merged,
and a conversation must begin with a clip.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from alm.errors import BadCheckpoint
from alm.facts import PromptFacts
from wrappers import Checkpoint, Wrapper
from wrappers.bridges.window_qformer import Shape, WindowQFormer
from wrappers.checkpoint import llm_files
from wrappers.checkpoint.adapters import peft_folder
from wrappers.checkpoint.hf import Folder
from wrappers.checkpoint.model_type import model_type
from wrappers.checkpoint.plain_files import extractor, read_json
from wrappers.checkpoint.text import chat_template
from wrappers.checkpoint.text.template_files import named_token
from wrappers.checkpoint.weights.tensors import Weights
from wrappers.encoders import granite_speech
from wrappers.frontends.mel import HOP, RATE
from wrappers.frontends.paired_mel import FFT, LEAST, TAPS, PairedMel, pairs_of

LOOKS_LIKE = "a Hugging Face folder whose config.json says model_type: granite_speech(_plus)"

PLUS = "granite_speech_plus"  # the same, the projector reads some layers of the encoder beside
LONGEST = 600 * RATE  # samples heard as one, where the LLM's context would hold more
SHARE = 3, 4  # of that context a clip may take; the rest is for the words and the answer

# The words are those of the published model cards.
TASKS = {
    "transcribe": "can you transcribe the speech into a written format?",
    "transcribe_punctuated": "transcribe the speech with proper punctuation and capitalization.",
    "translate_de": "translate the speech to German.",
    "translate_en": "translate the speech to English.",
    "translate_es": "translate the speech to Spanish.",
    "translate_fr": "translate the speech to French.",
    "translate_ja": "translate the speech to Japanese.",
    "translate_pt": "translate the speech to Portuguese.",
    "translate_zh": "translate the speech to Chinese.",
}


def recognises(path: Path) -> bool:
    """Whether `path` is, or holds, a config.json of Granite Speech."""
    return model_type(path) in (GraniteSpeech.family, PLUS)


def load(path: Path) -> Checkpoint:
    """Take the checkpoint apart; nothing large is read before its part is loaded.

    Raises:
        MissingFile: no weights or no tokenizer in the folder.
        BadCheckpoint: weights missing or misshapen (all named at once), settings that contradict
            each other, an adapter that is announced and not there, or a chat template that is no
            start, turns and an end.
    """
    folder = GraniteSpeech(path)
    return folder.checkpoint(
        audio_tokens=lambda: folder.rows_of(folder.window_samples),
        least_samples=LEAST,
        long="each",
    )


class GraniteSpeech(Folder):
    """The checkpoint taken apart."""

    family = tower = "granite_speech"
    front = "paired_mel"
    joint, joint_file = "qformer", "window_qformer"
    tower_section = "encoder_config"
    tower_prefix, bridge_prefix = "encoder.", "projector."
    unused = (*llm_files.UNUSED, r"^encoder\..*\.num_batches_tracked$")

    @property
    def tower_type(self) -> str:
        """See `Files.tower_type`."""
        return f"{self.config.model_type}_encoder"

    @cached_property
    def tower_config(self) -> dict[str, Any]:
        """The encoder's sizes."""
        audio = self.audio_config
        return {name: getattr(audio, name, None) for name in granite_speech.DEFAULTS}

    @cached_property
    def weights(self) -> Weights:
        """See `Files.weights`."""
        return granite_speech.flattened(super().weights)

    @property
    def tied(self) -> bool:
        """The head is the whole model's, and so is the setting."""
        return bool(self.config.tie_word_embeddings)

    # --- sizes

    @property
    def queries(self) -> int:
        """Embeddings that a window of the projector becomes.

        Raises:
            BadCheckpoint: not a whole number of them.
        """
        window, rate = int(self.config.window_size), int(self.config.downsample_rate)
        if window % rate:
            raise BadCheckpoint(
                f"{self.file} says window_size {window} and downsample_rate {rate}, which do not "
                "go into each other"
            )
        return window // rate

    def rows_of(self, samples: int) -> int:
        """Embeddings that a clip becomes."""
        return -(-pairs_of(samples) // int(self.config.window_size)) * self.queries

    @cached_property
    def window_samples(self) -> int:
        """See `Files.window_samples`: what its share of the context holds, at most LONGEST.

        Raises:
            BadCheckpoint: the extractor's settings are of another spectrogram, all named.
        """
        self._check_extractor()
        part, whole = SHARE
        windows = max(1, self.spec.context * part // whole // self.queries)
        return min(LONGEST, windows * int(self.config.window_size) * 2 * HOP)

    @property
    def mels(self) -> int:
        """Mel bins, of which the encoder takes two frames side by side."""
        return int(self.tower_config["input_dim"]) // 2

    def _check_extractor(self) -> None:
        """What transformers' extractor makes of its settings is the spectrogram that is known.

        It takes sizes from keys of their own and not from `melspec_kwargs`, where it writes them.
        """
        file, settings = extractor(self.path)
        wanted = {
            **{"sampling_rate": RATE, "n_fft": FFT, "win_length": TAPS, "hop_length": HOP},
            **{"n_mels": self.tower_config["input_dim"] / 2, "padding_value": 0.0},
            "projector_window_size": self.config.window_size,
            "projector_downsample_rate": self.config.downsample_rate,
        }
        usual = {"n_mels": 80, "projector_window_size": 15, "projector_downsample_rate": 5}
        told = usual | settings
        odd = [
            f"{name} {str(told[name])[:80]} and not {want:g}"
            for name, want in wanted.items()
            if told.get(name, want) != want
        ]
        nested = settings.get("melspec_kwargs") or {}
        mels = {"n_mels": wanted["n_mels"], "sample_rate": RATE}
        odd += [
            f"melspec_kwargs.{name} {str(nested[name])[:80]} and not {want:g}"
            for name, want in (wanted | mels).items()
            if isinstance(nested, dict) and nested.get(name, want) != want
        ]
        if odd:
            raise BadCheckpoint(f"{file} says {', '.join(odd)}, as {self.file} wants it")

    # --- parts

    def mel(self) -> Wrapper:
        return PairedMel(self.mels, self.window_samples)

    def build_tower(self) -> Wrapper:
        return granite_speech.build(self.tower_config, pairs_of(self.window_samples))

    def build_projector(self) -> Wrapper:
        bert, tower = self.config.projector_config, self.tower_config
        width = tower["hidden_dim"] * (1 + len(tower["cat_hidden_layers"] or ()))
        heads = getattr(bert, "num_attention_heads", 1)
        wrong = []
        if bert.model_type != "blip_2_qformer":
            raise BadCheckpoint(
                f"{self.file} says projector_config.model_type: {bert.model_type!r}; known is "
                "blip_2_qformer"
            )
        if bert.encoder_hidden_size != width:
            wrong.append(f"encoder_hidden_size: {bert.encoder_hidden_size}, and frames are {width}")
        if bert.hidden_size % heads:
            wrong.append(f"hidden_size: {bert.hidden_size}, which {heads} heads do not share")
        if bert.use_qformer_text_input:
            wrong.append("use_qformer_text_input: true, and its queries read no text here")
        if wrong:
            raise BadCheckpoint(f"{self.file} says projector_config.{'; '.join(wrong)}")
        shape = Shape(
            width=width,
            hidden=bert.hidden_size,
            heads=heads,
            layers=bert.num_hidden_layers,
            intermediate=bert.intermediate_size,
            queries=self.queries,
            window=int(self.config.window_size),
            out=self.spec.hidden,
            eps=bert.layer_norm_eps,
            activation=bert.hidden_act,
            every=bert.cross_attention_frequency,
        )
        return WindowQFormer(shape, pairs_of(self.window_samples))

    # --- the whole

    def check(self) -> None:
        """See `Folder.check`; and the adapter that the config announces is there."""
        there = peft_folder.is_beside(self.given) or peft_folder.is_beside(self.path)
        if self.config.has_lora_adapter and not there:
            raise BadCheckpoint(
                f"{self.file} says has_lora_adapter: true, and {self.path} holds no "
                f"{peft_folder.CONFIG}; download the adapter beside the weights, or say "
                "has_lora_adapter: false if it is merged into them"
            )
        super().check()

    def prompt(self, tokenizer: Tokenizer) -> PromptFacts:
        placeholder = self.placeholder(tokenizer, self.config.audio_token_index)
        named = self._processors_token()
        if named != placeholder:
            raise BadCheckpoint(
                f"{self.path} has {placeholder!r:.80} for audio in its config and {named!r:.80} "
                "in its processor"
            )
        template = self._template
        if template is None:
            raise BadCheckpoint(f"{self.path} holds no chat template")
        return replace(
            replace(template, spelled=True).prompt(placeholder),
            clip_first=self.adapter is not None,
            tasks=TASKS,
            joined=tuple(sorted(TASKS.values())),
        )

    def _processors_token(self) -> str:
        """What transformers' processor replaces in a text: the tokenizer's word counts first."""
        for name in ("tokenizer_config.json", "processor_config.json"):
            file = self.path / name
            token = named_token(read_json(file) if file.is_file() else {}, "audio_token")
            if token is not None:
                return token
        return "<|audio|>"

    @cached_property
    def _template(self) -> chat_template.Template | None:
        """The folder's; a template for text alone is as good, the user spells the clip."""
        return chat_template.template(self.path, "")

    def notes(self) -> tuple[str, ...]:
        """See `Folder.notes`."""
        notes = super().notes()
        if self._template and "strftime_now" in self._template.source:
            notes += (
                f"the chat template in {self._template.where} writes the day's date: the prompt "
                "has that of this export",
            )
        return notes
