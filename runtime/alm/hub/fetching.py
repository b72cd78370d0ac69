"""A model of the hub into a folder: only what its manifest lists, and nothing that differs from it.

Bytes come into a hidden folder inside, each file under its sha256, so that a run that was killed
goes on where it was, also when the revision has moved meanwhile. When all files are whole they get
their names, the manifest last: a folder with a manifest is a folder with its files.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from alm.artifacts import manifest as manifests
from alm.artifacts import verify
from alm.artifacts.manifest import Manifest
from alm.errors import AlmError, BadArtifacts, HubFailed, MissingFile
from alm.host import atomic, containment
from alm.hub.client import Client
from alm.hub.names import Repo
from alm.hub.progress import Progress, megabytes, tell
from alm.parsing import File, check_name

WORK = ".pull"  # inside the folder: what is not whole yet
SHA256 = re.compile("[0-9a-f]{64}")
OPEN = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
Say = Callable[[str], None]


def wanted(manifest: Manifest, repo: Repo) -> list[File]:
    """The files that a pull takes: all that are listed but engines, each once.

    An engine is code that TensorRT runs unread: whoever wants one builds it here.

    Raises:
        BadArtifacts: a name leads outside, or two files share one.
    """
    found: dict[str, File] = {}
    for file in manifest.with_engines(()).files():
        try:
            check_name(file.name)
        except BadArtifacts as error:
            raise BadArtifacts(f"the manifest of {repo} is refused: {error}") from error
        if file.name.split("/")[0].lower() in (manifests.NAME, WORK):
            raise BadArtifacts(f"the manifest of {repo} is refused: it lists {file.name!r}")
        plain = File(file.name, file.bytes, file.sha256.lower())
        if not SHA256.fullmatch(plain.sha256):
            raise BadArtifacts(
                f"the manifest of {repo} is refused: {file.name!r} has no sha256 there"
            )
        if found.setdefault(file.name, plain) != plain:
            raise BadArtifacts(f"the manifest of {repo} is refused: two files are {file.name!r}")
    return list(found.values())


def whole(place: Path) -> bool:
    """Whether a folder holds its manifest and every file of it, by their sizes."""
    try:
        files = manifests.load(place).with_engines(()).files()
        return all(containment.contained(place, f.name).stat().st_size == f.bytes for f in files)
    except AlmError:
        return False


def fetch(
    client: Client, commit: str, listing: Path, place: Path, near: Path, say: Say = tell
) -> None:
    """Make `place` the model whose manifest lies in the folder `listing`.

    Files that are there and right are left alone, and those that the folder `near` has are copied.
    Others of the same names are replaced, all else stays; so do engines that were built of the same
    model.

    Raises:
        MissingFile, BadArtifacts: a file is not there or not what the manifest says; what is wrong
            is named and not kept.
        HubFailed: the hub cannot be reached or refuses, or there is no room.
    """
    try:
        with client.lock(place):
            _fetch(client, commit, listing, place, near, say)
    except AlmError:
        raise
    except OSError as error:  # no permission, no room
        where = error.filename or place
        raise HubFailed(f"{where} cannot be written: {error.strerror or error}") from error


def _fetch(client: Client, commit: str, listing: Path, place: Path, near: Path, say: Say) -> None:
    manifest = manifests.load(listing)
    files = wanted(manifest, client.repo)
    work = _work(place)
    missing = [file for file in files if not _there(place, file)]
    _check_room(client.repo, place, missing, work)
    absent = [file for file in missing if not _copied(near, file, work)]
    if absent:
        _check_entries(client, commit, absent)
        _fetch_all(client, commit, absent, work, say)
    same = _same(place, manifest)
    if not same:  # killed from here on, it is no folder of a model, and not half of another
        (place / manifests.NAME).unlink(missing_ok=True)
    for file in missing:
        atomic.adopt(place, file.name, work / file.sha256)
    if not same and manifest.engines:
        manifest.with_engines(()).save(place)
    elif not same:
        atomic.write(place, manifests.NAME, (listing / manifests.NAME).read_bytes())
    shutil.rmtree(work, ignore_errors=True)


def _work(place: Path) -> Path:
    work = place / WORK
    work.mkdir(parents=True, exist_ok=True)
    if work.is_symlink():
        raise BadArtifacts(f"{work} is refused: it is a symbolic link")
    return work


def _there(place: Path, file: File) -> bool:
    try:
        verify.check_file(place, file.name, file.bytes, file.sha256)
    except AlmError:
        return False
    return True


def _copied(near: Path, file: File, work: Path) -> bool:
    """Whether the file is in `near`, and now in the working folder too."""
    if work.parent == near or not _there(near, file):
        return False
    shutil.copyfile(near / file.name, work / file.sha256)
    with open(work / file.sha256, "rb") as copy:
        return verify.digest(copy) == file.sha256


def _same(place: Path, manifest: Manifest) -> bool:
    """Whether the folder's manifest is this one, engines aside."""
    with contextlib.suppress(AlmError):
        return manifests.load(place).with_engines(()) == manifest.with_engines(())
    return False


def _check_entries(client: Client, commit: str, files: Sequence[File]) -> None:
    """Refuse what the hub itself says is not what the manifest lists, before a byte comes."""
    entries = client.entries([file.name for file in files], commit)
    for file in files:
        entry = entries.get(file.name)
        if entry is None:
            raise MissingFile(
                f"{client.repo} does not hold {file.name!r}, which its manifest lists"
            )
        if entry.bytes != file.bytes:
            raise BadArtifacts(
                f"{file.name!r} of {client.repo} has {entry.bytes} bytes and the manifest says "
                f"{file.bytes}; nothing was fetched"
            )
        if entry.sha256 and entry.sha256.lower() != file.sha256:
            raise BadArtifacts(
                f"{file.name!r} of {client.repo} has sha256 {entry.sha256:.64} and the manifest "
                f"says {file.sha256}; nothing was fetched"
            )


def _check_room(repo: Repo, place: Path, files: Sequence[File], work: Path) -> None:
    need = sum(file.bytes - _size(work / file.sha256) for file in files)
    free = shutil.disk_usage(place).free
    if need > free:
        raise HubFailed(
            f"{repo} takes {megabytes(need)} more in {place}, where {megabytes(free)} are free"
        )


def _fetch_all(client: Client, commit: str, files: Sequence[File], work: Path, say: Say) -> None:
    total = sum(file.bytes for file in files)
    say(f"{client.repo}: {len(files)} files, {megabytes(total)}, from {client.endpoint}")
    progress = Progress(total, say)
    for file in files:
        before = _size(work / file.sha256)
        going_on = f", from byte {before:,} on" if before else ""
        say(f"{file.name}: {megabytes(file.bytes)}{going_on}")
        progress.kept(before)
        try:
            right = _fetched(client, commit, file, work, progress)
            if not right and before:  # what was here was not the beginning of it
                right = _fetched(client, commit, file, work, progress)
        except BadArtifacts:
            (work / file.sha256).unlink(missing_ok=True)
            raise
        if not right:
            raise BadArtifacts(
                f"{file.name!r} of {client.repo} does not have the sha256 {file.sha256} that the "
                "manifest says; what came was not kept"
            )


def _fetched(client: Client, commit: str, file: File, work: Path, progress: Progress) -> bool:
    """Fetch what lacks of a file; whether it then has its hash, without which it is removed."""
    path = work / file.sha256
    with open(os.open(path, OPEN, 0o666), "r+b") as part:
        if part.seek(0, os.SEEK_END) > file.bytes:
            part.seek(0)
            part.truncate()
        client.fetch(file, commit, part, progress.add)
        part.flush()
        os.fsync(part.fileno())
        part.seek(0)
        right = verify.digest(part) == file.sha256
    if not right:
        path.unlink(missing_ok=True)
    return right


def _size(path: Path) -> int:
    try:
        return path.lstat().st_size
    except OSError:
        return 0
