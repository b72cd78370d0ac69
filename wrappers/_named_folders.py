"""The Whisper folder and the LLM folder that a config.yaml names, read alike for every family."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from alm.errors import BadCheckpoint
from wrappers import Wrapper, _llm_folder, mel, whisper
from wrappers._lazy import attach, hollow
from wrappers._plain_files import extractor, read_json
from wrappers._spec import Spec
from wrappers._weights import Weights, open_folder
from wrappers._yaml_config import Config
from wrappers.mel import RATE

MOST_SECONDS = 3600  # of a window


class Folders(Config):
    """`whisper_path` and `llama_path`; each property is read once, when it is asked for."""

    @cached_property
    def whisper_config(self) -> dict[str, Any]:
        file = self.path("whisper_path") / "config.json"
        return whisper.known(read_json(file), str(file))

    @property
    def whisper_folder(self) -> Weights:
        """The encoder's weights, as the folder has them."""
        return open_folder(self.path("whisper_path")).under("model.encoder.", "encoder.")

    @cached_property
    def whisper_weights(self) -> Weights:
        """The encoder's weights, as the checkpoint uses them."""
        return self.whisper_folder

    @cached_property
    def window_samples(self) -> int:
        """Samples of the Whisper window: 30 s, or what its preprocessor says."""
        file, said = extractor(self.path("whisper_path"))
        seconds = said.get("chunk_length", 30)
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
        """The LLM that its folder describes."""
        return _llm_folder.read_spec(self.path("llama_path"))

    @cached_property
    def llm_folder(self) -> Weights:
        """What the LLM's folder holds, as it is named there and quantized where it is."""
        return open_folder(self.path("llama_path"))

    @cached_property
    def llm_weights(self) -> Weights:
        """The LLM's own weights under transformers' names."""
        return _llm_folder.named(self.llm_folder)

    def mel(self, dialect: str) -> Wrapper:
        return mel.Mel(int(self.whisper_config["num_mel_bins"]), self.window_samples)

    def whisper(self, dialect: str) -> Wrapper:
        part = hollow(lambda: whisper.build(self.whisper_config, dialect))
        return attach(part, self.whisper_weights)
