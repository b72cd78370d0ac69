"""Ultravox (Fixie.ai 2024): a Whisper of the clip's own length, eight frames side by side, any LLM.

A clip of any length is heard as one, 6.25 embeddings a second; beyond 30 s in windows that know
nothing of each other. The code beside a published checkpoint is read by nobody here; what it
computes is written anew. Its `UltravoxPipeline` decides where a prompt's clip stands, which tokens
end an answer, and that what was said already is penalized.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from torch import Tensor

from alm.errors import BadCheckpoint
from alm.facts import PromptFacts, TokenFacts
from wrappers import Checkpoint, Wrapper
from wrappers.bridges.projector import AFTER, BEFORE, BETWEEN, Projector
from wrappers.checkpoint.hf_files import BRIDGE, LONGEST
from wrappers.checkpoint.model_type import model_type
from wrappers.checkpoint.text import chat_template, generation_fields, tokenizer_files
from wrappers.checkpoint.ultravox_files import TEXT_ID, UltravoxFolder
from wrappers.checkpoint.ultravox_keys import PLACEHOLDER, check_processor
from wrappers.checkpoint.weights.tensors import Weights
from wrappers.encoders import clip_whisper
from wrappers.frontends.chunk_mel import LEAST, ChunkMel, rows_of

LOOKS_LIKE = "a Hugging Face folder whose config.json says model_type: ultravox"

END_OF_TURN = "<|eot_id|>"  # ends an answer of any LLM that has it
# What the pipeline gives to `generate`.
ORIGINAL = {"do_sample": False, "repetition_penalty": 1.1}
PROCESSING, SINCE = "ultravox_processing.py", "audio_batch_size"
LANGUAGES = {
    **{"ar": "Arabic", "ca": "Catalan", "de": "German", "en": "English", "es": "Spanish"},
    **{"fr": "French", "hi": "Hindi", "it": "Italian", "ja": "Japanese", "nl": "Dutch"},
    **{"pt": "Portuguese", "ru": "Russian", "sv": "Swedish", "tr": "Turkish", "uk": "Ukrainian"},
    **{"vi": "Vietnamese", "zh": "Chinese"},
}
# The words of the training data, with the clip in its place.
TRANSLATE = (
    "Please translate the text to {0}. Your response should only include the {0} translation, "
    "without any additional words:\n\n<audio>"
)
TASKS = {
    "respond": "<audio>",
    "transcribe": "Repeat the following text, without any explanation: <audio>",
    "answer": "Answer the following question:\n\n<audio>",
    "continue": "Continue the following text using less than 50 words:\n\n<audio>",
} | {f"translate_{code}": TRANSLATE.format(name) for code, name in LANGUAGES.items()}
JOINED = tuple(w for name, w in TASKS.items() if name.startswith("trans"))


def recognises(path: Path) -> bool:
    """Whether `path` is, or holds, a config.json of Ultravox."""
    return model_type(path) == Ultravox.family


def load(path: Path) -> Checkpoint:
    """Take the checkpoint apart; nothing large is read before its part is loaded.

    Raises:
        MissingFile: no weights or no tokenizer in the folder, or a model that the config names is
            not on this machine.
        BadCheckpoint: weights missing or misshapen (all named at once), settings that contradict
            each other, or a chat template that is no start, turns and an end.
    """
    folder = Ultravox(path)
    _ = folder.named  # what is not there at all comes first
    return folder.checkpoint(
        audio_tokens=lambda: rows_of(2 * folder.frames, folder.stack),
        least_samples=LEAST,
        long="joined",
    )


class Ultravox(UltravoxFolder):
    """The checkpoint taken apart."""

    family = "ultravox"
    tower = "clip_whisper"
    front = "chunk_mel"
    # Of the norms a config has two: the first, and one of the others.
    bridge = {
        **{"layers.0": "ln_pre", "layers.1": "linear_1"},
        **{"layers.3": "ln_mid", "layers.4": "linear_2", "layers.5": "ln_post"},
    }

    @property
    def stack(self) -> int:
        """Frames of the tower in a row."""
        return int(self.settings["stack_factor"])

    def mel(self) -> Wrapper:
        mels = int(self.whisper_config["num_mel_bins"])
        return ChunkMel(mels, 2 * self.frames, stack=self.stack)

    def build_tower(self) -> Wrapper:
        check_processor(self.path, self.stack, 2 * self.frames)
        if self.stack > self.frames:
            raise BadCheckpoint(
                f"{self.file} says stack_factor: {self.stack}, and a window has {self.frames} "
                "frames"
            )
        block = self.settings["audio_latency_block_size"] or 0
        try:
            return clip_whisper.build(self.whisper_config, stack=self.stack, block=block)
        except BadCheckpoint as error:
            raise BadCheckpoint(f"{self.file}: {error}") from error

    def build_projector(self) -> Projector:
        settings, width = self.settings, int(self.whisper_config["d_model"])
        try:
            return Projector(
                [self.stack * width, int(settings["hidden_size"]), self.spec.hidden],
                frames="speech_frames",
                stack=self.stack,
                bias=False,
                activation=settings["projector_act"],
                rms=(BEFORE, BETWEEN if settings["projector_ln_mid"] else AFTER),
            )
        except BadCheckpoint as error:
            raise BadCheckpoint(f"{self.file}: {error}") from error

    @property
    def audio_scale(self) -> float:
        """What the LLM multiplies the audio's embeddings with.

        Up to its version 4 transformers scales all that goes into a Gemma, not the words alone as
        since version 5; the config says which of them wrote it.
        """
        old = int(self.settings["transformers_version"].partition(".")[0] or 0) < 5
        return self.spec.embedding_scale if old else 1.0

    @cached_property
    def adapted(self) -> Weights:
        """See `Folder.adapted`; the projector's last weight holds the audio's scale."""
        weights, scale = super().adapted, self.audio_scale
        if scale == 1.0:
            return weights
        last = BRIDGE + ("linear_2" if self.settings["projector_ln_mid"] else "ln_post") + ".weight"
        scaled = Weights(weights.where)

        def read() -> Tensor:
            return weights[last].float() * scale

        scaled.add(last, weights.shapes[last], read)
        return weights.over(scaled)

    # --- words

    def prompt(self, tokenizer: Tokenizer) -> PromptFacts:
        """The LLM's own template; a clip stands behind the words, where they do not place it."""
        folder = self.tokenizer_folder
        template = chat_template.of_tokenizer(folder)
        if template is None:
            raise BadCheckpoint(f"{folder} holds no chat template")
        facts = template.prompt(PLACEHOLDER)
        turn = facts.turn.replace("{clips}{}", "{} {clips}")
        return replace(facts, turn=turn, tasks=TASKS, joined=JOINED)

    def tokens(self, tokenizer: Tokenizer, start: str) -> TokenFacts:
        """What ends an answer in the pipeline: the tokenizer's end, and a Llama's end of a turn.

        The original's `generate` is given the first of them in the place of each of a clip's
        embeddings.

        Raises:
            BadCheckpoint: the tokenizer names no end, or one that the LLM does not know.
        """
        folder = self.tokenizer_folder
        end = tokenizer_files.special_id(folder, tokenizer, "eos_token")
        if end is None or end >= self.spec.vocab:
            raise BadCheckpoint(
                f"{folder} has a tokenizer whose eos_token is "
                f"{'not said' if end is None else f'{end}, which the LLM does not know'}"
            )
        turn = tokenizer.token_to_id(END_OF_TURN)
        added = turn in tokenizer.get_added_tokens_decoder() and turn is not None
        ends = dict.fromkeys((end, turn) if turn is not None and added else (end,))
        file, plain = self.generation_config
        stops = generation_fields.stop_strings(plain, file)
        return TokenFacts(None, tuple(ends), tuple(stops), penalize_prompt=True, audio=end)

    @cached_property
    def generation_config(self) -> tuple[Path, dict[str, Any]]:
        """The LLM's own settings, which `generate` finds."""
        return generation_fields.in_folder(self.named.get(TEXT_ID, self.path))

    def generation(self) -> dict[str, Any]:
        """See `Files.generation`; what the pipeline gives goes before it."""
        file, plain = self.generation_config
        options = generation_fields.settings(plain, file)
        return generation_fields.defaults(
            options, ORIGINAL, where=file, vocab=self.spec.vocab, max_new_tokens=LONGEST
        )

    def notes(self) -> tuple[str, ...]:
        """See `Folder.notes`."""
        notes = list(super().notes())
        code = self.path / PROCESSING
        if code.is_file() and SINCE not in code.read_text("utf-8", "replace"):
            notes.append(
                f"{code} is older than version 0.5, which hears no clip beyond 30 s and drops what "
                "fills no 10 ms at its end; clips are heard here as by all that came after"
            )
        return tuple(notes)
