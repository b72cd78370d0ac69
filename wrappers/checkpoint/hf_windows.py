"""A Hugging Face folder whose processor cuts a clip into windows and hears all of them as one.

The windows are encoded apart and their embeddings follow each other in the prompt, up to the
processor's `max_audio_len`. A processor takes one clip a prompt.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

from tokenizers import Tokenizer

from alm.errors import BadCheckpoint
from alm.facts import MOST_SAMPLES, PromptFacts
from wrappers import Checkpoint, Wrapper
from wrappers.checkpoint.hf import Folder
from wrappers.checkpoint.plain_files import read_json
from wrappers.checkpoint.text import one_clip
from wrappers.frontends.mel import RATE
from wrappers.frontends.window_mel import WindowMel, least_samples

LONGEST_WINDOW = 120  # seconds


class WindowedFolder(Folder):
    """The checkpoint taken apart; a family adds its tower, its projector and its prompt."""

    front = "window_mel"
    stack: int  # frames of the tower in a row
    filled = False  # whether a clip's last row may have frames of the silence behind it
    counted = False  # whether the tower leaves out what is behind a clip
    asked: str  # the processor's request for a transcript, where its settings name none
    longest: int  # seconds that the processor hears, where its settings name none
    tokens_of_prompt: tuple[str, ...]  # that the tokenizer must have as one each

    @cached_property
    def processor(self) -> dict[str, Any]:
        """The processor's own settings."""
        file = self.path / "processor_config.json"
        return read_json(file) if file.is_file() else {}

    @cached_property
    def window(self) -> int:
        """Samples of a window: of the extractor's chunk.

        Raises:
            BadCheckpoint: the extractor's settings are of another spectrogram, all named, or its
                windows are no rows.
        """
        mels = self.audio_config.num_mel_bins
        wanted = {"feature_size": mels, "dither": 0.0, "padding_value": 0.0}
        settings = self.check_extractor(wanted)
        seconds, side = settings.get("chunk_length", 30), settings.get("padding_side", "right")
        if type(seconds) is not int or not 0 < seconds <= LONGEST_WINDOW:
            raise BadCheckpoint(
                f"{self.path} has an extractor of chunk_length {str(seconds)[:80]}; it must be a "
                f"whole number of seconds, at most {LONGEST_WINDOW}"
            )
        if side != "right":
            raise BadCheckpoint(f"{self.path} has an extractor of padding_side {str(side)[:80]!r}")
        if seconds * 50 % self.stack:
            raise BadCheckpoint(
                f"{self.path} has windows of {seconds * 50} frames, which are no rows of "
                f"{self.stack}"
            )
        return seconds * RATE

    @property
    def frames(self) -> int:
        """Frames that the tower gives for a window."""
        return self.window // RATE * 50

    @cached_property
    def windows(self) -> int:
        """Windows that are heard as one, as the processor counts them.

        Raises:
            BadCheckpoint: none, or more than a manifest can say.
        """
        seconds = self.processor.get("max_audio_len", self.longest)
        most = MOST_SAMPLES // RATE
        if type(seconds) not in (int, float) or not self.window <= seconds * RATE <= most * RATE:
            raise BadCheckpoint(
                f"{self.path} has a processor of max_audio_len {str(seconds)[:80]}; it must be "
                f"seconds from {self.window // RATE} to {most}"
            )
        return int(seconds * RATE // self.window)

    @cached_property
    def window_samples(self) -> int:
        """See `Files.window_samples`; of all windows that are heard as one."""
        return self.windows * self.window

    def mel(self) -> Wrapper:
        return WindowMel(
            int(self.audio_config.num_mel_bins),
            self.window,
            stack=self.stack,
            most=self.windows,
            filled=self.filled,
            counted=self.counted,
        )

    @property
    def request(self) -> str:
        """The words with which the processor asks for a transcript."""
        words = self.processor.get("default_transcription_prompt", self.asked)
        if not isinstance(words, str) or not words.strip():
            raise BadCheckpoint(f"{self.path} names no default_transcription_prompt that is a text")
        return words

    def known_prompt(self, tokenizer: Tokenizer, prompt: PromptFacts) -> PromptFacts:
        """The prompt with the token for audio in the place of its placeholder, proved.

        Raises:
            BadCheckpoint: the processor has another token, the tokenizer lacks one of the prompt's,
                or the folder has another chat template.
        """
        self.tokens_there(tokenizer, self.tokens_of_prompt)
        placeholder = self.placeholder(tokenizer, self.config.audio_token_id)
        named = self.processor.get("audio_token", prompt.placeholder)
        if not placeholder == named == prompt.placeholder:
            raise BadCheckpoint(
                f"{self.path} has {placeholder!r:.80} for audio in its config and {named!r:.80} "
                f"in its processor; known is {prompt.placeholder} in both"
            )
        one_clip.check(self.path, prompt)
        return prompt

    def taken_apart(self) -> Checkpoint:
        """See `Folder.checkpoint`; a clip of all windows is one, and a longer one is cut."""
        return self.checkpoint(
            audio_tokens=lambda: self.windows * (self.frames // self.stack),
            least_samples=least_samples(self.stack, self.filled),
            long="each",
        )
