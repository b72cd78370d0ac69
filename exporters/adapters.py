"""LoRA adapters that stay files: what of the model gets slots, and their place in the bundle."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from alm.adapters.settings import CONFIG, MERGE, WEIGHTS
from alm.adapters.store import Adapters
from alm.artifacts.manifest import File, Manifest
from alm.errors import BadCheckpoint, BadOption, MissingFile
from exporters.bundle import Bundle
from wrappers import Checkpoint
from wrappers.checkpoint.adapters import at_run_time
from wrappers.checkpoint.adapters.at_run_time import Shares

NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")
FOLDER = "adapters"  # of the artifacts


@dataclass(frozen=True)
class Kept:
    """The adapters of an export: their folders by name, and the modules that get slots."""

    folders: Mapping[str, Path] = field(default_factory=dict)
    slots: Shares = field(default_factory=dict)


def read(words: Sequence[str], checkpoint: Checkpoint, chosen: Sequence[str]) -> Kept:
    """What NAME=DIR words say of a checkpoint, of which the parts `chosen` are exported.

    Raises:
        BadOption: no NAME=DIR, or a part that changes is not exported.
        MissingFile, BadCheckpoint: an adapter that is not there, or that only merging can follow.
    """
    folders: dict[str, Path] = {}
    for word in words:
        name, _, folder = word.partition("=")
        if not NAME.fullmatch(name) or not folder:
            raise BadOption(
                f"wanted --adapter NAME=DIR, NAME of letters, digits and _ . -, not {word!r:.80}"
            )
        if name in folders:
            raise BadOption(f"--adapter names {name} twice")
        folders[name] = Path(folder)
    if not folders:
        return Kept()
    live = checkpoint.facts.live.step_samples or checkpoint.facts.align.mark
    if checkpoint.shares is None or live:
        raise BadCheckpoint(f"{checkpoint.family} takes no adapter at run time; {MERGE}")
    shares: dict[str, Shares] = {}
    for name, folder in folders.items():
        if not (folder / CONFIG).is_file():
            raise MissingFile(f"there is no {CONFIG} in {folder}, which --adapter wants")
        shares[name] = checkpoint.shares(folder)
        if missing := [part for part in shares[name] if part not in chosen]:
            raise BadOption(
                f"adapter {name} changes part {missing[0]}, which is not exported; say --part all"
            )
    return Kept(folders, at_run_time.joined(shares))


def place(kept: Kept, bundle: Bundle) -> dict[str, tuple[File, File]]:
    """Copy the adapters into the bundle; what the manifest lists of them."""
    listed: dict[str, tuple[File, File]] = {}
    for name, folder in kept.folders.items():
        target = bundle.folder / FOLDER / name
        target.mkdir(parents=True)
        for file in (CONFIG, WEIGHTS):
            shutil.copyfile(folder / file, target / file)
        listed[name] = bundle.file(target / CONFIG), bundle.file(target / WEIGHTS)
    return listed


def check(manifest: Manifest, bundle: Bundle, names: Sequence[str]) -> None:
    """Read each of these adapters as the runtime does.

    Raises:
        BadArtifacts: it does not take one.
    """
    store = Adapters(bundle.folder, manifest)
    for name in names:
        store.find(name)


def with_old(manifest: Manifest, old: Manifest | None) -> Manifest:
    """The manifest with the adapters of the one before it, where all slots are still there."""
    if old is None or not old.adapters:
        return manifest
    there = {part.name: part.slots for part in manifest.parts}
    if any(part.slots and there.get(part.name) != part.slots for part in old.parts):
        return manifest
    return replace(manifest, adapters={**old.adapters, **manifest.adapters})
