"""Whether every file is the one that was exported, and whose it is if not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from alm.artifacts import verify
from alm.artifacts.manifest import Manifest
from alm.doctor.finding import OK, WRONG, Finding
from alm.errors import AlmError
from alm.parsing import File

AGAIN = "copy the folder again, or export it again"


def check(folder: Path, manifest: Manifest) -> Iterator[Finding]:
    """One finding for each owner of files: parts in the order of a run, then the others."""
    for owner, files in owners(manifest).items():
        wrong = [why for file in files if (why := _fault(folder, file))]
        if wrong:
            yield Finding("files", owner, WRONG, what=wrong[0], way_out=AGAIN)
        else:
            size = sum(file.bytes for file in files)
            yield Finding("files", owner, OK, what=f"{size} bytes as exported")


def owners(manifest: Manifest) -> dict[str, list[File]]:
    """Files by what they belong to."""
    found: dict[str, list[File]] = {}
    for part in manifest.parts:
        found[part.name] = [*part.files, *(engine.file for engine in part.engines)]
    if manifest.tokenizer:
        found["tokenizer"] = [manifest.tokenizer]
    for name, pair in manifest.adapters.items():
        found[f"adapter {name}"] = [*pair]
    for part in manifest.parts:
        if part.golden:
            found[f"golden vectors of {part.name}"] = [part.golden]
    if manifest.golden:
        found["golden runs"] = [*manifest.golden]
    return found


def _fault(folder: Path, file: File) -> str:
    try:
        verify.check_file(folder, file.name, file.bytes, file.sha256)
    except AlmError as error:
        return str(error)
    return ""
