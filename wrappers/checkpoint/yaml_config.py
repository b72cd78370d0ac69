"""A checkpoint's config.yaml: sections, numbers and paths, each looked at before it is used."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from alm.errors import BadCheckpoint, MissingFile
from wrappers.checkpoint.limits import shown
from wrappers.checkpoint.plain_files import MOST_YAML, exists, read_yaml

NUMBERS: dict[str, type] = {
    "num_speech_query_token": int,
    "second_per_window": float,
    "second_stride": float,
    "qformer_heads": int,
    "lora_rank": int,
    "lora_alpha": float,
    "vblora_topk": int,
    "whisper_lora_rank": int,
    "whisper_lora_alpha": float,
}
# Keys of files and folders by which one checkpoint is told from another.
FILES = ("whisper_path", "beats_path", "llama_path", "ckpt", "lora_path", "hubert_path", "km_path")
MOST: dict[type, float] = {int: 2**16, float: 1e9}  # of these numbers


@dataclass(frozen=True)
class Config:
    """A config.yaml, read on first use."""

    file: Path  # config.yaml

    @cached_property
    def config(self) -> dict[str, Any]:
        config = read_yaml(self.file)
        if not isinstance(config, dict):
            raise BadCheckpoint(f"{self.file} has no sections")
        return config

    def section(self, name: str) -> dict[str, Any]:
        """A section of the config, empty when it is not there."""
        section = self.config.get(name) or {}
        if not isinstance(section, dict):
            raise BadCheckpoint(f"{self.file}: `{name}` is {shown(section)} and not a section")
        return section

    @cached_property
    def settings(self) -> dict[str, Any]:
        """The `model` section, its numbers checked."""
        settings = dict(self.section("model"))
        for name, kind in NUMBERS.items():
            if settings.get(name) is None:
                settings.pop(name, None)
                continue
            try:
                settings[name] = kind(settings[name])
            except (TypeError, ValueError, OverflowError):
                settings[name] = 0
            if not 0 < settings[name] <= MOST[kind]:
                given = shown(self.section("model")[name])
                raise BadCheckpoint(
                    f"{self.file} says {name}: {given}; it must be above zero, "
                    f"at most {MOST[kind]:.0f}"
                )
        return settings

    def path(self, key: str) -> Path:
        """A path of the config: absolute, or relative to the config's folder, or to where we run.

        The original is run from its repository, and its configs name paths as seen from there.
        """
        given = self.settings.get(key)
        if not given:
            raise BadCheckpoint(f"{self.file} does not say `{key}`")
        if not isinstance(given, str):
            raise BadCheckpoint(f"{self.file} says {key}: {given!r:.80}; it must be a path")
        path = self.beside(given)
        if path is None:
            there = self.file.parent / given
            raise MissingFile(
                f"{self.file} says {key}: {given:.200}, but there is no {str(there):.300}"
                f"{'' if Path(given).is_absolute() else f' and none in {Path.cwd()}'}"
            )
        return path

    def beside(self, name: str) -> Path | None:
        """A file or folder as the config names it, beside the config first; None: there is none."""
        try:
            plain = Path(name).expanduser()
        except RuntimeError:  # a ~user whom nobody knows
            plain = Path(name)
        places = (self.file.parent / plain, plain)
        return next((path for path in places if exists(path)), None)

    @cached_property
    def fingerprint(self) -> str:
        """Tells this checkpoint from another: names, sizes, and both ends of every file.

        Hashing all of the weights would take longer than most exports of a part.
        """
        digest = hashlib.sha256(self.file.read_bytes())
        for key in FILES:
            if not self.settings.get(key):
                continue
            path = self.path(key)
            for file in sorted(path.iterdir()) if path.is_dir() else [path]:
                if file.is_file():
                    digest.update(f"{key} {file.name} {file.stat().st_size}".encode())
                    digest.update(_ends(file))
        return digest.hexdigest()


def config_file(path: Path) -> Path:
    """The config.yaml in a folder, or the file itself."""
    return path / "config.yaml" if path.is_dir() else path


def recognised(path: Path, ours: Callable[[Any], bool], marks: Sequence[str]) -> bool:
    """Whether `path` is, or holds, a YAML file that is `ours`.

    A damaged one is ours where all `marks` stand in it: loading reports what is wrong.
    """
    file = config_file(path)
    if not file.is_file() or file.suffix not in (".yaml", ".yml"):
        return False
    try:
        return ours(read_yaml(file))
    except BadCheckpoint:
        with file.open("rb") as stream:
            text = stream.read(MOST_YAML).decode("utf-8", "replace")
        return all(mark in text for mark in marks)


def refuse_all(attempts: Iterable[Callable[[], Any]]) -> None:
    """Raise what these complain of, all at once and as the first of them does."""
    errors: list[BadCheckpoint | MissingFile] = []
    for attempt in attempts:
        try:
            attempt()
        except (BadCheckpoint, MissingFile) as error:
            errors.append(error)
    if errors:
        raise type(errors[0])("; ".join(dict.fromkeys(map(str, errors))))


def _ends(file: Path) -> bytes:
    """The first and the last MiB of a file."""
    with file.open("rb") as stream:
        head = stream.read(2**20)
        stream.seek(max(0, file.stat().st_size - 2**20))
        return head + stream.read()
