"""Artifacts before they are loaded: inside their folder, as long as stated, and unchanged."""

from __future__ import annotations

import hashlib
import os
import re
import stat
import time
from collections.abc import Callable, Collection
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from alm import _remembered
from alm.errors import BadArtifacts, MissingFile
from alm.graphfile import GraphFile

CHUNK = 2**20  # bytes hashed at a time
TICK = 50_000_000  # ns; within a clock's tick a file can change twice and keep its time
MOST_CACHED = 4096  # files whose hash is remembered
# {resolved path: [device, inode, size, mtime, ctime, sha256]}
HASHES = "sha256.json"


def check_name(name: str) -> None:
    """Refuse, with BadArtifacts, a name that could mean a file outside its folder.

    A name is parts joined by "/", the same on every system: relative, and no part "", "." or "..".
    """
    rules = (
        (not name, "a name must not be empty"),
        ("\0" in name, "a name must not hold NUL"),
        ("\\" in name, "a name must not hold a backslash; parts are joined by '/'"),
        (name.startswith("/"), "a path must not be absolute"),
        (":" in name, "a name must not hold a colon (a drive or a stream on Windows)"),
        (".." in name.split("/"), "a path must not go up with '..'"),
        (not {"", "."}.isdisjoint(name.split("/")), "a path must not have empty or '.' parts"),
    )
    for broken, rule in rules:
        if broken:
            raise BadArtifacts(f"the file name {name[:200]!r} is refused: {rule}")


def contained(root: Path, name: str) -> Path:
    """The regular file `name` below `root`, reached through no link of any kind.

    Raises MissingFile when it is not there, BadArtifacts with the rule that it breaks. The root
    itself may be a link.
    """
    check_name(name)
    path = Path(root)
    found = None
    for part in name.split("/"):
        if found is not None and not stat.S_ISDIR(found.st_mode):
            raise BadArtifacts(f"{name!r} in {root} is refused: {path.name!r} is not a folder")
        path = path / part
        try:
            found = path.lstat()
        except (FileNotFoundError, NotADirectoryError):
            raise MissingFile(f"there is no {name!r} in {root}; copy or export it again") from None
        except (OSError, ValueError) as error:  # no permission, too long, not encodable
            why = getattr(error, "strerror", None) or "no name of a file"
            raise BadArtifacts(f"{name[:200]!r} in {root} cannot be looked at: {why}") from None
        if stat.S_ISLNK(found.st_mode):
            raise BadArtifacts(f"{name!r} in {root} is refused: {part!r} is a symbolic link")
    assert found is not None  # a name has at least one part
    if not stat.S_ISREG(found.st_mode):
        raise BadArtifacts(f"{name!r} in {root} is refused: it is not a regular file")
    if found.st_nlink != 1:
        raise BadArtifacts(
            f"{name!r} in {root} is refused: it has {found.st_nlink} hard links and 1 was wanted; "
            "copy the folder with plain files"
        )
    return path


def check_file(
    root: Path,
    name: str,
    size: int,
    digest: str,
    progress: Callable[[int], None] | None = None,
) -> Path:
    """The contained file `name`, of `size` bytes and sha256 `digest` (hexadecimal).

    Raises MissingFile, or BadArtifacts with what was expected and what there is.
    """
    path = contained(root, name)
    there = path.stat().st_size
    if there != size:
        raise BadArtifacts(
            f"{name!r} in {root} has {there} bytes and the manifest says {size}; copy or export "
            "it again"
        )
    found = sha256(path, progress)
    if found != digest.lower():
        raise BadArtifacts(
            f"{name!r} in {root} has sha256 {found} and the manifest says {digest}; copy or "
            "export it again"
        )
    return path


def check_external(root: Path, graph: GraphFile, graph_name: str, listed: Collection[str]) -> None:
    """Refuse a graph whose tensors lie in a file that is not its own.

    `graph_name` is the graph's name below `root`, `listed` are the names, below `root` too, that
    the manifest gives for its part. Each location is relative to the graph's folder; it must be
    listed and contained, and long enough. Raises MissingFile or BadArtifacts.
    """
    folder = PurePosixPath(graph_name).parent
    sizes: dict[str, int] = {}
    for tensor in sorted(graph.tensors):
        location = tensor.location
        if location not in sizes:
            check_name(location)  # before it is joined: "a/../../b" must not become "../b"
            name = str(folder / location)
            if name not in listed:
                raise BadArtifacts(
                    f"{graph_name!r} in {root} keeps weights in {name!r}, which the manifest does "
                    "not list for this part"
                )
            sizes[location] = contained(root, name).stat().st_size
        end = tensor.offset + tensor.length
        if end > sizes[location]:
            raise BadArtifacts(
                f"{graph_name!r} in {root} wants bytes {tensor.offset} to {end} of {location!r}, "
                f"which has {sizes[location]}; copy or export it again"
            )


def sha256(path: Path, progress: Callable[[int], None] | None = None) -> str:
    """The file's sha256 in hexadecimal, remembered for as long as the file does not change.

    `progress` is called with the number of bytes done since its last call: all of them at once
    when the answer was remembered. Raises MissingFile, or BadArtifacts when it cannot be read.
    """
    try:
        with open(path, "rb") as file:
            now, before = time.time_ns(), os.fstat(file.fileno())
            key, place = _key(before), str(Path(path).resolve())
            remembered = _remembered.recall(HASHES).get(place)
            if isinstance(remembered, list) and remembered[:-1] == key:
                found = str(remembered[-1])
                if re.fullmatch("[0-9a-f]{64}", found):
                    (progress or _quiet)(before.st_size)
                    return found
            found = digest(file, progress)
            if _key(os.fstat(file.fileno())) != key:
                raise BadArtifacts(f"{path} changed while it was read; try again")
    except FileNotFoundError:
        raise MissingFile(f"there is no file {path}") from None
    except OSError as error:
        raise BadArtifacts(f"{path} cannot be read: {error.strerror or error}") from None
    if max(before.st_mtime_ns, before.st_ctime_ns) < now - TICK:
        _remembered.remember(HASHES, place, [*key, found], MOST_CACHED)
    return found


def digest(file: BinaryIO, progress: Callable[[int], None] | None = None) -> str:
    """sha256, in hexadecimal, of what is left to read of an open file; nothing is remembered."""
    made = hashlib.sha256()
    while chunk := file.read(CHUNK):
        made.update(chunk)
        (progress or _quiet)(len(chunk))
    return made.hexdigest()


def _quiet(_: int) -> None:
    pass


def _key(found: os.stat_result) -> list[int]:
    # st_ctime_ns: a file's mtime can be set back, its change time cannot.
    return [found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns]
