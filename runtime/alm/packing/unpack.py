"""An .alm file becomes a folder again."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

from alm.artifacts import manifest as manifests
from alm.errors import AlmError, BadArtifacts
from alm.host import archive, atomic
from alm.packing.check import check
from alm.packing.pack import CHUNK, Say

LEFT = re.compile(rf"\.{re.escape(manifests.NAME)}\.[0-9a-f]+\.new")  # by a run that was killed


def unpack(file: Path, folder: Path, say: Say = lambda line: None) -> int:
    """Write an .alm file's members into a new folder; how many there are.

    Raises:
        MissingFile, BadArtifacts: it is no .alm file, was changed, or the folder is there already.
    """
    new = _is_new(folder)
    with archive.unchanged(file):
        count = check(file, None, say).members
        # A folder that is there is filled, since it may be where the user is.
        place = folder.absolute() if new else folder.absolute() / manifests.NAME
        atomic.clear(place)
        beside = atomic.new_folder(place)
        try:
            atomic.check_room(beside, archive.layout(file).bytes, folder)
            _copy(file, beside, folder)
        except BaseException:
            shutil.rmtree(beside, ignore_errors=True)
            raise
    try:
        if new:
            beside.rename(folder)
        else:
            for path in sorted(beside.iterdir(), key=lambda path: path.name == manifests.NAME):
                path.rename(folder / path.name)  # with the manifest, the last, it is a model's
    except OSError as error:
        raise BadArtifacts(f"{folder} cannot be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return count


def _is_new(folder: Path) -> bool:
    """Whether there is no such folder; BadArtifacts where there is one that holds something."""
    try:
        inside = os.listdir(folder)
    except FileNotFoundError:
        return True
    except NotADirectoryError:
        inside = [folder.name]
    except OSError as error:
        raise BadArtifacts(f"{folder} cannot be written: {error.strerror or error}") from error
    if any(not LEFT.fullmatch(name) for name in inside):
        raise BadArtifacts(f"{folder} is there already; give a new or an empty one")
    return False


def _copy(file: Path, beside: Path, folder: Path) -> None:
    """The members of an .alm file as files beside the folder that they are for."""
    try:
        for name in archive.names(file):
            target = beside / name
            target.parent.mkdir(parents=True, exist_ok=True)
            with archive.section(file, name) as stream, target.open("xb") as copy:
                shutil.copyfileobj(stream, copy, CHUNK)
    except AlmError:
        raise
    except OSError as error:
        raise BadArtifacts(f"{folder} cannot be written: {error.strerror or error}") from error
