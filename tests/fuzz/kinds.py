"""Inputs of every kind: how one is made of the sound original, and what is done with it."""

from __future__ import annotations

import shlex
from pathlib import Path
from random import Random
from typing import Any, Protocol

import judge
import mutations
import numpy as np
import of_checkpoints
import of_golden
import of_models
import of_packs
import of_requests
import soundfile

from alm.cli import alm_commands, run_command

RATE = 16000


class Kind(Protocol):
    """A fuzzer."""

    def make(self, dice: Random) -> bytes:
        """An input: a file's content, or a command line."""
        ...

    def run(self, content: bytes) -> str | None:
        """Use it; may raise, or return what is wrong."""
        ...


class Audio:
    """Sound files of every format that is read."""

    FORMATS = (("WAV", "PCM_16"), ("WAV", "FLOAT"), ("FLAC", "PCM_16"), ("OGG", "VORBIS"),
               ("MP3", "MPEG_LAYER_III"), ("AIFF", "PCM_24"), ("OGG", "OPUS"))  # fmt: skip

    def __init__(self, sources: Path, scratch: Path) -> None:
        self.path = scratch / "clip"
        self.whole: list[bytes] = []
        sound = 0.1 * np.random.default_rng(0).standard_normal((8000, 2)).astype(np.float32)
        for container, subtype in self.FORMATS:
            soundfile.write(self.path, sound, RATE, format=container, subtype=subtype)
            self.whole.append(self.path.read_bytes())

    def make(self, dice: Random) -> bytes:
        return mutations.raw(dice, dice.choice(self.whole), near=200)

    def run(self, content: bytes) -> None:
        from alm.audio import reader

        self.path.write_bytes(content)
        reader.read(str(self.path), RATE, "first", max_seconds=60)


class Words:
    """Command lines; none of them serves, builds or writes outside of the scratch folder."""

    OPTIONS = (
        "--max-new-tokens", "--num-beams", "--repetition-penalty", "--length-penalty",
        "--min-length", "--temperature", "--top-p", "--top-k", "--seed", "--threads", "--provider",
        "--max-audio-seconds", "--engine",
    )  # fmt: skip
    FLAGS = ("--sample", "--greedy", "--json", "--truncate", "--list-tasks", "--chat", "-h", "--x")
    VALUES = ("0", "1", "-1", "2", "4", "0.5", "nan", "inf", "1e308", "100000", "9" * 30, "", "x",
              "cpu", "auto", "openvino", "tensorrt", "None", "\x1b[31m", "é", "\udcff")  # fmt: skip
    TOOLS = (
        ("inspect", ("--part", "--verify", "--no-verify", "--json")),
        ("lint", ("--target", "--part", "--json")),
        ("plan", ("--device", "--seconds", "--context")),
        ("build", ("--dry-run", "--backend", "--part", "--batch", "--context", "--prompt",
                   "--workspace", "--memory")),
    )  # fmt: skip
    NAMES = ("agx-orin-64gb", "cpu", "portable", "mel", "decoder", "10,30", "trt-rtx")

    def __init__(self, sources: Path, scratch: Path) -> None:
        self.folder, self.clip = str(sources / "artifacts"), str(sources / "clip.wav")

    def make(self, dice: Random) -> bytes:
        values = [*self.VALUES, *self.NAMES, self.folder, self.clip]
        if dice.random() < 0.4:
            tool, options = dice.choice(self.TOOLS)
            words = [tool, self.folder if dice.random() < 0.9 else dice.choice(values)]
            words += ["--dry-run"] if tool == "build" else []
            for option in dice.choices(options, k=dice.randint(0, 4)):
                bare = option in ("--verify", "--no-verify", "--json", "--dry-run")
                words += [option] if bare else [option, dice.choice(values)]
        else:
            words = ["--engine", self.folder]
            for _ in range(dice.randint(0, 4)):
                words += [dice.choice(self.OPTIONS), dice.choice(values)]
            words += dice.choices(self.FLAGS, k=dice.choice([0, 0, 1, 2]))
            prompts = ["transcribe", "transcibe", "say <audio> it", "", *self.VALUES]
            words += [self.clip] * dice.choice([0, 1, 1, 1, 2]) + dice.choices(prompts, k=1)
        if dice.random() < 0.2:
            dice.shuffle(words)
        return shlex.join(words).encode("utf-8", "surrogateescape")

    def run(self, content: bytes) -> str:
        words = shlex.split(content.decode("utf-8", "surrogateescape"))
        tool = bool({"inspect", "lint", "plan", "build"} & set(words[:1]))
        app = alm_commands.app if tool else run_command.running
        return judge.told(app, words, words[:1] in (["inspect"], ["lint"]) or "--chat" in words)


KINDS: dict[str, Any] = {
    "manifests": of_models.Manifests,
    "tokenizers": of_models.Tokenizers,
    "graphs": of_models.Graphs,
    "packs": of_packs.Packs,
    "golden": of_golden.Golden,
    "requests": of_requests.Requests,
    "audio": Audio,
    "words": Words,
    "yaml": of_checkpoints.Yaml,
    "configs": of_checkpoints.Configs,
    "safetensors": of_checkpoints.Safetensors,
    "pickles": of_checkpoints.Pickles,
}
