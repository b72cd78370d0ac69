"""The Whisper folder and the LLM folder that a config.yaml names, read alike for every family."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

from alm.errors import BadCheckpoint
from wrappers import Wrapper
from wrappers.checkpoint import llm_files, pruned
from wrappers.checkpoint.adapters import peft_folder
from wrappers.checkpoint.adapters.contract import Adapter
from wrappers.checkpoint.plain_files import extractor, read_json
from wrappers.checkpoint.text import generation_fields
from wrappers.checkpoint.weights.hollow import attach, hollow
from wrappers.checkpoint.weights.tensors import Weights, open_folder
from wrappers.checkpoint.yaml_config import Config
from wrappers.encoders import whisper
from wrappers.frontends import mel
from wrappers.frontends.mel import RATE
from wrappers.layers.spec import Spec

MOST_SECONDS = 3600  # of a window


class Folders(Config):
    """`whisper_path` and `llama_path`; each property is read once, on first use."""

    @cached_property
    def whisper_config(self) -> dict[str, Any]:
        file = self.path("whisper_path") / "config.json"
        return whisper.known(read_json(file), str(file))

    @property
    def whisper_folder(self) -> Weights:
        """The encoder's weights, as the folder has them.

        Raises:
            BadCheckpoint: transformers would change them by an adapter that lies beside them.
        """
        if peft_folder.is_beside(self.path("whisper_path")):
            raise BadCheckpoint(
                f"{self.path('whisper_path')} holds a PEFT adapter ({peft_folder.CONFIG}), which "
                f"is not applied to Whisper here; {peft_folder.MERGE}"
            )
        return open_folder(self.path("whisper_path")).under("model.encoder.", "encoder.")

    @cached_property
    def whisper_weights(self) -> Weights:
        """The encoder's weights, as the checkpoint uses them."""
        return self.whisper_folder

    @cached_property
    def window_samples(self) -> int:
        """Samples of the Whisper window: 30 s, or what its preprocessor has."""
        file, settings = extractor(self.path("whisper_path"))
        seconds = settings.get("chunk_length", 30)
        if type(seconds) is not int or not 0 < seconds <= MOST_SECONDS:
            raise BadCheckpoint(f"{file} says chunk_length {seconds!r}; it counts seconds")
        samples = seconds * RATE
        frames = int(self.whisper_config["max_source_positions"])
        if samples // 320 != frames:
            raise BadCheckpoint(
                f"{file} says chunk_length {seconds} (s), which are {samples // 320} frames, but "
                f"Whisper's config.json beside it says max_source_positions {frames}"
            )
        return samples

    @cached_property
    def spec(self) -> Spec:
        """The LLM that its folder describes.

        Raises:
            MissingFile, BadCheckpoint: it is the folder of an adapter without its LLM.
        """
        folder = self.path("llama_path")
        if peft_folder.is_alone(folder):
            base = peft_folder.base_of(folder)
            raise BadCheckpoint(
                f"llama_path {folder} is a PEFT adapter alone, trained on {base}; copy "
                f"{peft_folder.CONFIG} and {peft_folder.FILES[0]} into {base}, and give that"
            )
        return llm_files.read_spec(folder, lambda: llm_files.named(self.llm_folder))

    @cached_property
    def folder_adapter(self) -> Adapter | None:
        """The PEFT adapter in the LLM's folder, which transformers applies when it loads it."""
        folder = self.path("llama_path")
        if not peft_folder.is_beside(folder):
            return None
        tied = {llm_files.TABLE: llm_files.HEAD} if self.spec.tied else {}
        return peft_folder.read(folder, tied=tied)

    def one_adapter(self, trained: Adapter | None) -> Adapter | None:
        """The one adapter of the LLM: of the training, or of its folder.

        Raises:
            BadCheckpoint: there are both.
        """
        if trained and self.folder_adapter:
            raise BadCheckpoint(
                f"{self.path('llama_path')} holds a PEFT adapter, and {trained.where} another one "
                "that was trained on top of it; merge the first into the folder's weights with peft"
            )
        return trained or self.folder_adapter

    @cached_property
    def llm_folder(self) -> Weights:
        """What the LLM's folder holds, as it is named there and quantized where it is."""
        return open_folder(self.path("llama_path"))

    @cached_property
    def llm_weights(self) -> Weights:
        """The LLM's own weights under transformers' names."""
        return pruned.left(self.spec, llm_files.named(self.llm_folder))

    def generation(
        self, original: Mapping[str, Any], given: Mapping[str, Any], most_new: int
    ) -> dict[str, Any]:
        """Decoding settings of the LLM's folder, then the original's own, then the config's.

        Args:
            original: what the original gives to `generate` unless its config says otherwise.
            given: what the config's section `generate` says.
            most_new: tokens of the longest answer where nothing sets one.
        """
        file, plain = generation_fields.in_folder(self.path("llama_path"))
        return generation_fields.defaults(
            generation_fields.settings(plain, file),
            original,
            generation_fields.section(given, f"{self.file}, section generate,"),
            where=self.file,
            vocab=self.spec.vocab,
            max_new_tokens=most_new,
        )

    def mel(self) -> Wrapper:
        return mel.Mel(int(self.whisper_config["num_mel_bins"]), self.window_samples)

    def whisper(self) -> Wrapper:
        part = hollow(lambda: whisper.build(self.whisper_config))
        return attach(part, self.whisper_weights)
