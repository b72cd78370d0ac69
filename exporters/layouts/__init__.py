"""Layouts: an artifact folder's model as the files of another runtime, one layout a file.

A file gives NAME, what `--layout` calls it; FAMILIES, those whose tokens that runtime gave as ours
does; DIALECT, which the decoder must be of; FOLDER, where in the artifacts its files lie, or ""
where they lie beside ours; OWN, what it writes there; and `write(made)`. What a layout does not
know is refused before anything is exported.
"""

from __future__ import annotations

import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from alm import registry
from alm.artifacts import manifest as manifests
from alm.artifacts.manifest import Manifest
from alm.errors import BadArtifacts, BadOption, UnknownName
from exporters.layouts._graphs import Files


@dataclass(frozen=True)
class Made:
    """What a layout is made of, and where to."""

    manifest: Manifest
    source: Path  # the checkpoint: a folder, or a file in it
    artifacts: Path
    files: Files


def found() -> dict[str, ModuleType]:
    """Name -> layout."""
    here = sys.modules[__name__]
    modules = [registry.pick(here, name) for name in registry.names(here)]
    return {module.NAME: module for module in modules}


def check(names: list[str], family: str, dialect: str) -> None:
    """Refuse what cannot be written, before anything is exported.

    Raises:
        UnknownName: no such layout.
        BadOption: a layout that does not know the family, or takes another dialect.
    """
    known = found()
    for name in names:
        if name not in known:
            raise UnknownName(f"unknown layout {name!r}; there is: {', '.join(known)}")
        layout = known[name]
        if family not in layout.FAMILIES:
            raise BadOption(
                f"layout {name} does not know the family {family}; "
                f"it knows {', '.join(layout.FAMILIES)}"
            )
        if dialect != layout.DIALECT:
            raise BadOption(
                f"layout {name} wants the dialect {layout.DIALECT}, and this is {dialect}; "
                f"say --dialect {layout.DIALECT}"
            )


def own() -> set[str]:
    """What layouts write into an artifact folder, below it: an export leaves none of an older."""
    return {layout.FOLDER or name for layout in found().values() for name in layout.OWN}


def write(names: list[str], artifacts: Path, source: Path) -> None:
    """Write layouts of a whole artifact folder into it, each once all its files are there.

    Raises:
        BadArtifacts: a part is missing, or is of a form that the layout cannot hold.
    """
    said = manifests.load(artifacts)
    for name in names:
        layout = found()[name]
        lacking = {"decoder", "table"} - {part.role for part in said.parts}
        if lacking:
            raise BadArtifacts(f"layout {name} wants all parts, and there is no {min(lacking)}")
        [decoder] = [part for part in said.parts if part.role == "decoder"]
        if decoder.dialect != layout.DIALECT:
            raise BadArtifacts(
                f"layout {name} wants the dialect {layout.DIALECT}, and part {decoder.name} is of "
                f"{decoder.dialect}; export it again"
            )
        site = artifacts / f".{name}.new"
        shutil.rmtree(site, ignore_errors=True)
        site.mkdir()
        try:
            files = Files(artifacts, site, beside=not layout.FOLDER)
            layout.write(Made(said, source, artifacts, files))
            _move(site, artifacts / layout.FOLDER)
        finally:
            shutil.rmtree(site, ignore_errors=True)


def _move(site: Path, folder: Path) -> None:
    """What is in the site into the folder, in the place of what is there."""
    folder.mkdir(exist_ok=True)
    for path in sorted(site.iterdir()):
        target = folder / path.name
        if target.is_dir():
            shutil.rmtree(target)
        path.replace(target)
