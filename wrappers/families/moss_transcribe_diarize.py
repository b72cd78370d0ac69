"""MOSS-Transcribe-Diarize (OpenMOSS 2026): a Whisper, frames side by side, two layers, a Qwen3.

A clip of up to an hour is heard as one, in windows of 30 s that are encoded apart, 12.5 embeddings
a second; among them stand the seconds so far, as text. The answer says who speaks from when to
when: `[0.48][S01]Welcome.[1.66]`.
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
from wrappers.bridges.projector import Projector
from wrappers.checkpoint import moss_authors
from wrappers.checkpoint.hf_windows import WindowedFolder
from wrappers.checkpoint.limits import shown
from wrappers.checkpoint.model_type import model_type
from wrappers.checkpoint.plain_files import read_json
from wrappers.checkpoint.text import chat_template, one_clip
from wrappers.encoders import whisper
from wrappers.frontends.mel import RATE

LOOKS_LIKE = "a Hugging Face folder whose config.json says model_type: moss_transcribe_diarize"

LONGEST = 3600  # seconds heard as one; no file names a bound but the LLM's context
MOST_STACK = 64  # frames in a row; the published one has 4
EIGHTH = (
    8  # parts of an embedding a second that are exact in floating point, as the original counts
)

BEGIN, END = "<|im_start|>", "<|im_end|>"
BEGIN_AUDIO, END_AUDIO, SOUND = "<|audio_start|>", "<|audio_end|>", "<|audio_pad|>"
# What is published, for folders without a template, and for one that puts clips before all words.
PROMPT = PromptFacts(
    start=f"{BEGIN}system\nYou are a helpful assistant.{END}\n",
    system=f"{BEGIN}system\n{{}}{END}\n",
    turn=f"{BEGIN}user\n{{clips}}{{}}{END}\n{BEGIN}assistant\n",
    clip=f"{BEGIN_AUDIO}{SOUND}{END_AUDIO}\n",
    placeholder=SOUND,
    end=f"{END}\n",
)
# The authors' request for a transcript with times and speakers, which it was trained with.
ASKED = (
    "请将音频转写为文本，每一段需以起始时间戳和说话人编号（[S01]、[S02]、[S03]…）开头，"
    "正文为对应的语音内容，并在段末标注结束时间戳，以清晰标明该段语音范围。"
)


def recognises(path: Path) -> bool:
    """Whether `path` is, or holds, a config.json of MOSS-Transcribe-Diarize."""
    return model_type(path) == MossTranscribeDiarize.family


def load(path: Path) -> Checkpoint:
    """Take the checkpoint apart; nothing large is read before its part is loaded.

    Raises:
        MissingFile: no weights or no tokenizer in the folder.
        BadCheckpoint: weights missing or misshapen (all named at once), settings that contradict
            each other, a tokenizer without the tokens of a prompt, or a chat template that is no
            start, turns and an end.
    """
    return MossTranscribeDiarize(path).taken_apart()


class MossTranscribeDiarize(WindowedFolder):
    """The checkpoint taken apart."""

    family = "moss_transcribe_diarize"
    tower_type = "moss_transcribe_diarize_audio"
    bridge = {"layers.0": "linear_1", "layers.2": "linear_2", "layers.3": "norm"}
    filled = True
    most_new = 5120  # tokens, as the authors' own software has it
    tokens_of_prompt = (BEGIN, END, BEGIN_AUDIO, END_AUDIO)

    @cached_property
    def config(self) -> Any:
        """transformers' config, also of a folder in the authors' own layout."""
        plain = read_json(self.file)
        return moss_authors.config(plain, self.file) if self._theirs else super().config

    @cached_property
    def _theirs(self) -> bool:
        return moss_authors.is_theirs(read_json(self.file))

    def published(self, name: str) -> str:
        """See `Files.published`."""
        return super().published(moss_authors.published(name) if self._theirs else name)

    @property
    def tied(self) -> bool:
        """The head is the whole model's, and so is the setting."""
        return bool(self.config.tie_word_embeddings)

    @cached_property
    def stack(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Frames of the tower in a row."""
        frames = self.config.audio_merge_size
        if type(frames) is not int or not 0 < frames <= MOST_STACK:
            raise BadCheckpoint(
                f"{self.file} says audio_merge_size: {shown(frames)}; it must be a whole number "
                f"from 1 to {MOST_STACK}"
            )
        return frames

    @cached_property
    def windows(self) -> int:
        """Windows that are heard as one: an hour, or what fills half of the LLM's context."""
        most = self.spec.context // (2 * (self.frames // self.stack))
        return max(1, min(LONGEST * RATE // self.window, most))

    def build_tower(self) -> Wrapper:
        positions = int(self.whisper_config["max_source_positions"])
        if positions != self.frames:
            raise BadCheckpoint(
                f"{self.file} says audio_config.max_source_positions: {positions}, and the "
                f"extractor's windows are {self.frames} frames"
            )
        return whisper.build(self.whisper_config)

    def build_projector(self) -> Projector:
        width, hidden = int(self.whisper_config["d_model"]), self.spec.hidden
        return Projector(
            [width * self.stack, hidden, hidden],
            frames=self.frames,
            stack=self.stack,
            bias=self.config.projector_bias,
            activation=self.config.projector_hidden_act,
            norm=True,
            eps=float(self.config.text_config.rms_norm_eps),
        )

    def check(self) -> None:
        """See `Folder.check`; the processor's settings as well."""
        wrong: list[str] = []
        for tried in (super().check, self._check_settings):
            try:
                tried()
            except BadCheckpoint as error:
                if not any(str(error) in other for other in wrong):
                    wrong.append(str(error))
        if wrong:
            raise BadCheckpoint("; ".join(wrong))

    def _check_settings(self) -> None:
        """That config and processor agree, and time is told in a way that is done here.

        Raises:
            BadCheckpoint: they do not; all that is wrong is named.
        """
        said, wrong = self.processor, []
        every, rate = self._every, said.get("audio_tokens_per_second", 12.5)
        rows = said.get("audio_merge_size", 4)
        if (merged := self.config.audio_merge_size) != rows:
            wrong.append(f"audio_merge_size {shown(rows)}, and {self.file} {shown(merged)}")
        if (samples := self.config.audio_chunk_size) != self.window:
            wrong.append(
                f"windows of {self.window} samples, and {self.file} audio_chunk_size "
                f"{shown(samples)}"
            )
        if (named := said.get("audio_token", SOUND)) != SOUND:
            wrong.append(f"audio_token {shown(named)}; known is {SOUND}")
        if type(every) is not int or not 0 <= every <= 3600:
            wrong.append(
                f"time_marker_every_seconds {shown(every)}; it must be a whole number from 0 to "
                "3600"
            )
        if type(rate) not in (int, float) or not 0 < rate <= 1000 or rate * EIGHTH % 1:
            wrong.append(f"audio_tokens_per_second {shown(rate)}; it must be eighths, at most 1000")
        if (marks := said.get("enable_time_marker", True)) is not True:
            wrong.append(
                f"enable_time_marker {shown(marks)}, which transformers does not heed; "
                "time_marker_every_seconds: 0 leaves times out"
            )
        if wrong:
            raise BadCheckpoint(f"{self.path} has a processor of {'; of '.join(wrong)}")

    @property
    def _every(self) -> Any:
        """Seconds from one time among the embeddings to the next."""
        return self.processor.get("time_marker_every_seconds", 2)

    def prompt(self, tokenizer: Tokenizer) -> PromptFacts:
        placeholder = self.placeholder(tokenizer, self.config.audio_token_id)
        if placeholder != SOUND:
            raise BadCheckpoint(
                f"{self.file} says that {placeholder!r:.80} stands for audio; known is {SOUND}"
            )
        self.tokens_there(tokenizer, self.tokens_of_prompt)
        prompt, words = self._written()
        rate = self.processor.get("audio_tokens_per_second", 12.5)
        rows = int(rate * self._every)  # as transformers cuts it
        timed = rows > 0
        prompt = replace(
            prompt,
            tasks={"transcribe": words},
            joined=(words,),
            time_mark="[{}]",
            speaker_mark="[S{}]",
            marker_seconds=self._every if timed else 0,
            marker_rows=rows if timed else 0,
            marker_rate=int(rate * 1000) if timed else 0,
        )
        self._check_times(tokenizer, prompt)
        return prompt

    def _written(self) -> tuple[PromptFacts, str]:
        """The prompt of the folder's template, and the request in it where a user says nothing.

        Raises:
            BadCheckpoint: neither several clips nor one stand in it as they do in known ones.
        """
        template = chat_template.template(self.path, SOUND)
        if template is None:
            return PROMPT, ASKED
        try:
            prompt = template.prompt(SOUND, asks=True)
        except BadCheckpoint as error:  # it may still write one clip as it should
            prompt = replace(PROMPT, one_clip=True)
            try:
                one_clip.check(self.path, prompt)
            except BadCheckpoint:
                raise error from None
        words = template.request(prompt)
        return prompt, words if words.strip() else ASKED

    def _check_times(self, tokenizer: Tokenizer, prompt: PromptFacts) -> None:
        """That a time among a clip's embeddings has the ids that it has alone.

        Raises:
            BadCheckpoint: the tokenizer joins it to what stands around.
        """
        before, after = prompt.clip.split(SOUND)
        pieces = (before, SOUND, "5", SOUND, "10", after)
        ids = [tokenizer.encode(piece, add_special_tokens=False).ids for piece in pieces]
        whole = tokenizer.encode("".join(pieces), add_special_tokens=False).ids
        if prompt.marker_seconds and whole != [i for piece in ids for i in piece]:
            raise BadCheckpoint(
                f"the tokenizer in {self.path} joins the times within {prompt.clip!r:.80} to what "
                "stands beside them"
            )
