"""Qwen-Audio and Qwen-Audio-Chat (Chu et al. 2023): a Whisper that pools, one layer, a QWen.

Their folders hold the authors' own code, which is never run; what it does is done here. A clip
becomes 25 embeddings a second between two learned ones. The chat model numbers a turn's clips, the
base model is asked by tags: task, language, form of the answer.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from alm.errors import BadCheckpoint
from alm.facts import PromptFacts, TokenFacts
from wrappers import Checkpoint, Wrapper
from wrappers.bridges.tagged_projector import TaggedProjector
from wrappers.checkpoint import limits, llm_files
from wrappers.checkpoint.adapters import peft_folder
from wrappers.checkpoint.adapters.contract import Adapter
from wrappers.checkpoint.hf import Folder
from wrappers.checkpoint.model_type import config, model_type
from wrappers.checkpoint.qwen_audio_names import published, theirs
from wrappers.checkpoint.text import generation_fields, qwen_prompts, qwen_tokens
from wrappers.checkpoint.text.qwen_tokens import IM_END, IM_START
from wrappers.encoders import qwen_audio
from wrappers.frontends import mel
from wrappers.frontends.mel import HOP, RATE
from wrappers.layers.spec import Spec
from wrappers.llms import qwen

LOOKS_LIKE = "a folder whose config.json says model_type: qwen and has a section `audio`"

WINDOW = 30 * RATE  # samples; the mel is that of so many, and clips are cut to them
MELS = 80
CHATML, RAW = "chatml", "raw"


def recognises(path: Path) -> bool:
    """Whether `path` is, or holds, a config.json of Qwen-Audio; a QWen alone is none."""
    return model_type(path) == "qwen" and isinstance(config(path).get("audio"), dict)


def load(path: Path) -> Checkpoint:
    """Take the checkpoint apart; nothing large is read before its part is loaded.

    Raises:
        MissingFile: no weights or no qwen.tiktoken in the folder.
        BadCheckpoint: weights missing or misshapen, or settings that contradict each other or are
            not done here, all named at once.
    """
    folder = QwenAudio(path)
    return folder.checkpoint(
        audio_tokens=lambda: folder.window_samples // (4 * HOP) + qwen_audio.TAGS,
        least_samples=qwen_audio.LEAST,
        long="each",
    )


class QwenAudio(Folder):
    """The checkpoint taken apart."""

    family = tower = "qwen_audio"
    joint_file = "tagged_projector"
    bridge = {"proj": "proj", "tags": "audio_bos_eos_token"}
    unused = (*llm_files.UNUSED, r"attn\.masked_bias$")

    @cached_property
    def config(self) -> qwen.Config:
        """The LLM's settings, under the names of the authors' code."""
        return qwen.read(self.plain)

    @cached_property
    def spec(self) -> Spec:
        """The LLM that the config describes."""
        try:
            return qwen.spec(self.config)
        except BadCheckpoint as error:
            raise BadCheckpoint(f"{self.file}: {error}") from error

    @cached_property
    def audio(self) -> dict[str, Any]:
        """The config's section on the tower, what it leaves out as the authors' code has it.

        Raises:
            BadCheckpoint: it lacks a size, or has a setting that is not done here; all named.
        """
        audio = {"output_dim": 512, "avg_pool": True, "add_audio_bos_eos_token": True}
        audio |= {name: value for name, value in self.plain["audio"].items() if value is not None}
        needed = ("n_mels", "n_ctx", "n_state", "n_head", "n_layer", "audio_start_id")
        wrong = [f"no audio.{name}" for name in needed if name not in audio]
        if audio.get("n_mels", MELS) != MELS:
            wrong.append(f"audio.n_mels {audio['n_mels']}; known is {MELS}")
        if not audio["add_audio_bos_eos_token"]:
            wrong.append(
                "audio.add_audio_bos_eos_token false, with which the authors' code hears no clip"
            )
        wide, hidden = audio["output_dim"], self.plain.get("hidden_size", qwen.Config.hidden_size)
        if wide != hidden:
            wrong.append(f"audio.output_dim {wide}, and the LLM's rows are {hidden} wide")
        if wrong:
            raise BadCheckpoint(f"{self.file} says {'; '.join(wrong)}")
        return audio

    @cached_property
    def whisper_config(self) -> dict[str, Any]:
        """The tower's sizes under Whisper's names."""
        audio = self.audio
        return {
            "num_mel_bins": audio["n_mels"],
            "max_source_positions": audio["n_ctx"],
            "d_model": audio["n_state"],
            "encoder_layers": audio["n_layer"],
            "encoder_attention_heads": audio["n_head"],
            "encoder_ffn_dim": 4 * audio["n_state"],
            "activation_function": "gelu",
        }

    @cached_property
    def window_samples(self) -> int:
        """Samples of the longest piece that is heard at once: 30 s, or what has positions."""
        return min(WINDOW, 2 * HOP * int(self.audio["n_ctx"]))

    @property
    def tied(self) -> bool:
        """Whether the LLM's table is its head, where the folder holds no head."""
        return self.config.tie_word_embeddings

    def published(self, name: str) -> str:
        """See `Files.published`."""
        return published(name)

    @cached_property
    def adapter(self) -> Adapter | None:
        """The PEFT adapter beside the weights; see `Files.adapter`."""
        if not peft_folder.is_beside(self.given):
            return None
        if self.given != self.path and peft_folder.is_beside(self.path):
            raise BadCheckpoint(
                f"{self.given} is a PEFT adapter of {self.path}, which holds another one; merge "
                "that into the weights first"
            )
        return peft_folder.read(
            self.given,
            rename=published,
            aliases=lambda module: (theirs(f"{module}.").removesuffix("."),),
        )

    def check(self) -> None:
        """See `Folder.check`; weights are named as the folder names them."""
        try:
            super().check()
        except BadCheckpoint as error:
            raise BadCheckpoint(theirs(str(error))) from error

    def mel(self) -> Wrapper:
        return mel.Mel(MELS, WINDOW, cut=True)

    def build_tower(self) -> Wrapper:
        pooled = bool(self.audio["avg_pool"])
        return qwen_audio.build(self.whisper_config, self.window_samples, pooled=pooled)

    def build_projector(self) -> TaggedProjector:
        return TaggedProjector(int(self.audio["n_state"]), self.spec.hidden)

    # --- words

    def tokenizer_json(self) -> str:
        """See `Folder.tokenizer_json`.

        Raises:
            BadCheckpoint: the config has another token before a clip, or too few for its tokens.
        """
        made = qwen_tokens.tokenizer(self.path)
        size, said = made.get_vocab_size(), self.audio["audio_start_id"]
        opens, wrong = made.token_to_id(qwen_tokens.tags(self.path)[0]), []
        if said != opens:
            wrong.append(f"audio.audio_start_id {said}, and with {qwen_tokens.FILE} it is {opens}")
        if size > self.spec.vocab:
            wrong.append(f"vocab_size {self.spec.vocab}, and the tokenizer has {size} tokens")
        if wrong:
            raise BadCheckpoint(f"{self.file} says {'; '.join(wrong)}")
        return made.to_str()

    @cached_property
    def _asked(self) -> tuple[Path, dict[str, Any]]:
        """The decoding settings and their file, those of the authors' own among them."""
        return generation_fields.in_folder(self.path)

    @cached_property
    def chats(self) -> bool:
        """Whether this is the chat model.

        Raises:
            BadCheckpoint: generation_config.json has a form of chat that is not known.
        """
        file, plain = self._asked
        form = plain.get("chat_format", RAW)
        if form not in (CHATML, RAW):
            raise BadCheckpoint(f"{file} says chat_format: {form!r:.80}; known are chatml and raw")
        return form == CHATML

    @cached_property
    def generation_config(self) -> tuple[Path, dict[str, Any]]:
        """See `Files.generation_config`; without the settings of the authors' own."""
        file, plain = self._asked
        ours = ("chat_format", "max_window_size", "stop_words_ids")
        return file, {name: value for name, value in plain.items() if name not in ours}

    def tokens(self, tokenizer: Tokenizer, start: str) -> TokenFacts:
        """What ends an answer; of the chat model also what ends or begins a turn.

        Raises:
            BadCheckpoint: nothing does, or a sequence of several tokens.
        """
        file, plain = self.generation_config
        end, wrong = plain.get("eos_token_id"), []
        stops = self._asked[1].get("stop_words_ids") or []
        if type(end) is not int:
            wrong.append(f"eos_token_id {limits.shown(end)}; it must be one token")
        single = isinstance(stops, list) and all(
            isinstance(stop, list) and len(stop) == 1 and type(stop[0]) is int for stop in stops
        )
        if not single:
            wrong.append(f"stop_words_ids {limits.shown(stops)}; known are lists of one token each")
        if wrong:
            raise BadCheckpoint(f"{file} says {'; '.join(wrong)}")
        ends = [end]
        if self.chats:  # as the authors' `chat` has it, which reads no others
            ends += [tokenizer.token_to_id(name) for name in (IM_END, IM_START)]
        else:
            ends += [stop[0] for stop in stops]
        strings = generation_fields.stop_strings(plain, file)
        eos = tuple(dict.fromkeys(int(token) for token in ends if token is not None))
        return TokenFacts(None, eos, tuple(strings), penalize_prompt=True)

    def prompt(self, tokenizer: Tokenizer) -> PromptFacts:
        tags = qwen_tokens.tags(self.path)
        return qwen_prompts.chat(*tags) if self.chats else qwen_prompts.base(*tags)

    def notes(self) -> tuple[str, ...]:
        """See `Folder.notes`."""
        most = self._asked[1].get("max_window_size") if self.chats else None
        dropped = (
            f"the authors' code leaves out a conversation's oldest turns beyond {most} tokens; "
            "here all turns are kept, up to the context"
        )
        return (*super().notes(), *([dropped] if most else []))
