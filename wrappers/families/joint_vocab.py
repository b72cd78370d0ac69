"""Any LLM whose vocabulary goes on behind its text with units of sound (AudioPaLM's shape).

Rubenstein et al. 2023: an encoder's features become numbers of k-means centres, a number becomes a
row of the LLM's one embedding table, and a task is a prefix in plain text. No weights of AudioPaLM
are published; this reads whatever was trained in its shape, named by a `config.yaml` of our own:

    joint_vocab:
      llama_path: llm            # its table has rows for text, then for units
      hubert_path: hubert
      layer: 11
      km_path: km.npy
      offset: 32000              # the id of unit 0
      tasks: {transcribe: "[ASR English] <audio>"}

SpeechGPT's layout, whose units are tokens by name, has other keys: docs/joint-vocab.md.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

from alm.errors import BadCheckpoint
from alm.facts import AudioFacts, Facts, PromptFacts
from wrappers import Checkpoint, Wrapper
from wrappers.checkpoint import llm_files
from wrappers.checkpoint.joint_vocab_files import HUBERT, KINDS, MARK, PATHS, SECTION, JointFiles
from wrappers.checkpoint.limits import shown
from wrappers.checkpoint.yaml_config import config_file, recognised, refuse_all
from wrappers.encoders.hubert import RATE

LOOKS_LIKE = f"a config.yaml with a section `{SECTION}` ({', '.join(PATHS)})"

PLACEHOLDER = "<UnitsHere>"
TURN = "{} <audio>"
JOINED = "transcribe"  # the task whose answers to windows of one recording read on


def recognises(path: Path) -> bool:
    """Whether `path` is, or holds, a config.yaml with our section."""
    return recognised(path, lambda c: isinstance(c, dict) and SECTION in c, [f"{SECTION}:"])


def load(path: Path) -> Checkpoint:
    """Take the checkpoint apart; nothing large is read before its part is loaded.

    Raises:
        MissingFile: files or folders that the config names, all of them at once.
        BadCheckpoint: weights missing, misshapen or unknown (all named at once), units that have
            no rows or rows of text, or settings that are not followed.
    """
    return JointVocab(config_file(path)).checkpoint()


class JointVocab(JointFiles):
    """The checkpoint taken apart."""

    def _generation(self) -> dict[str, Any]:
        """What the config says of `generate`; the rest comes from the LLM's folder."""
        return self.generation({}, self.section("generate"), 256)

    # --- words

    @cached_property
    def _tasks(self) -> dict[str, str]:
        """Name of a task -> its words, with at most one place for a clip.

        Raises:
            BadCheckpoint: they are no such texts.
        """
        tasks = self.settings.get("tasks") or {}
        for name, text in tasks.items():
            named = isinstance(name, str) and name.strip() == name != ""
            if not named or not isinstance(text, str) or not text or text.count(MARK) > 1:
                raise BadCheckpoint(
                    f"{self.file} says tasks: {shown(name)}: {shown(text)}; wanted is a name, and "
                    f"a text with one {MARK}"
                )
        return tasks

    @cached_property
    def _turn(self) -> str:
        """A turn as the manifest has it."""
        turn = self.settings.get("turn", TURN)
        if turn.count("{}") != 1 or turn.count(MARK) != 1 or "{clips}" in turn:
            raise BadCheckpoint(
                f"{self.file} says turn: {shown(turn)}; one {{}} is wanted, for a user's words, "
                f"and one {MARK}"
            )
        return turn.replace(MARK, "{clips}")

    @cached_property
    def _prompt(self) -> PromptFacts:
        said = self.settings
        around = [said.get(key) or "" for key in ("begin", "end")]
        for key, text in zip(("begin", "end"), around, strict=True):
            if text:
                self.token(key, text)
        words = [said.get("start") or "", self._turn, *self._tasks.values()]
        if any(PLACEHOLDER in text for text in words):
            raise BadCheckpoint(f"{self.file} has {PLACEHOLDER} in a text: a clip's own place")
        return PromptFacts(
            start=words[0],
            turn=self._turn,
            clip=around[0] + PLACEHOLDER + around[1],
            placeholder=PLACEHOLDER,
            end=said.get("answer_end") or "",
            one_turn=not said.get("answer_end"),
            tasks=self._tasks,
            joined=(self._tasks[JOINED],) if JOINED in self._tasks else (),
        )

    # --- the whole

    def check(self) -> None:
        """Name everything that is missing, misshapen or does not fit, at once."""
        self.check_keys()
        own = KINDS[self.kind][:1] if self.kind == HUBERT else ()
        adapter = ("lora_path",) if self.settings.get("lora_path") else ()
        refuse_all(lambda key=key: self.path(key) for key in (*PATHS, *own, *adapter))
        refuse_all(
            (
                self.build_hubert if self.kind == HUBERT else self.stacked_mel,
                lambda: self.hubert_weights if self.kind == HUBERT else None,
                lambda: self.centres,
                lambda: self.llm_weights,
                lambda: self.adapter,
                lambda: self.tokenizer,
                lambda: self.units,
                lambda: self.tokens,
                lambda: self.tokenizer_json,
                lambda: self._tasks,
                lambda: self._turn,
                lambda: self._prompt,
                self._generation,
            )
        )
        wrong = self.sound_faults() + self.llm_faults()
        if self.frames < 1 or not self.units.merged and self.frames >= self.spec.context:
            wrong.append(
                f"{self.file} has windows of {self.most_samples // RATE} s, which are "
                f"{self.frames} units, and the LLM's context is {self.spec.context}; say another "
                "window_seconds"
            )
        if wrong:
            raise BadCheckpoint("; ".join(wrong))

    def checkpoint(self) -> Checkpoint:
        self.check()
        hears: dict[str, Callable[[], Wrapper]] = (
            {"hubert": self.hubert} if self.kind == HUBERT else {"stacked_mel": self.stacked_mel}
        )
        return Checkpoint(
            family=SECTION,
            parts=hears | {"kmeans": self.kmeans, "decoder": self.decoder},
            embedding=self.embedding,
            tokenizer_json=self.tokenizer_json,
            facts=Facts(
                prompt=self._prompt,
                tokens=self.tokens,
                units=self.units,
                generation=self._generation(),
                audio=AudioFacts(RATE, "mean", self.least_samples, self.most_samples, "each"),
                dimensions=llm_files.dimensions(self.spec, audio_tokens=self.frames),
                source={
                    "config": self.file.name,
                    "tokenizer": self.kind,
                    "llm": self.spec.config.model_type,
                    "adapter": self.adapter.kind.name if self.adapter else "none",
                    "fingerprint": self.fingerprint,
                },
                licence=self.section("licence"),
            ),
            notes=tuple(self.spec.found),
        )
