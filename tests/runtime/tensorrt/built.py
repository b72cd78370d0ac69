"""What tests of engines share: the command, an engine that a manifest may hold, the decoder."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from alm.artifacts import manifest
from alm.artifacts.engine_files import Engine, Maker, Profile
from alm.artifacts.manifest import File
from alm.cli import alm_commands, exit_status

RTX = "tensorrt-rtx"


def alm_build(*words: str | Path) -> int:
    return exit_status.run(alm_commands.app, ["build", *map(str, words)])


def decoder(folder: Path) -> manifest.Part:
    return manifest.load(folder).with_role("decoder")[0]


def quiet(_: str) -> None:
    pass


def some_engine(part: str = "decoder", **other: Any) -> Engine:
    maker = Maker("tensorrt", "10.3.0", "Linux aarch64", "Orin", "8.7")
    ranges: Profile = {"x": ((1, 1), (1, 8), (1, 64))}
    return replace(
        Engine(part, File("a.engine", 3, "ab"), "cd", maker, (ranges,), seconds=1.5), **other
    )
