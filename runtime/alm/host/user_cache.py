"""What was found out once, kept for next time: small files in the user's cache folder.

A hash that is remembered stands for a file that is not read again, and an engine that is kept is
code: so the folder and its files count only where nobody but the user can write them.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import stat
from functools import lru_cache
from pathlib import Path
from typing import Any

from alm.errors import BadArtifacts
from alm.host import atomic
from alm.parsing import printable

SEAL = "sealed.json"  # {file: sha256}: what lay in a folder of foreign files when it was left
MOST_BYTES = 16 * 2**20  # of a JSON file here
MOST_TIMINGS = 256 * 2**20
FOREIGN_WRITERS = stat.S_IWGRP | stat.S_IWOTH
LOG = logging.getLogger("alm")


def folder() -> Path:
    """Where they lie; RuntimeError where the system knows no home."""
    if chosen := os.environ.get("ALM_CACHE"):
        return Path(chosen)
    shared = os.environ.get("XDG_CACHE_HOME")
    base = Path(shared) if shared else Path.home() / ".cache"
    return base / "alm-edge"


def private(*names: str) -> Path | None:
    """The cache folder, or a folder below it; made if missing. None where it is not to be trusted.

    It must be the user's, no link, and nobody else's to write. Where it is not, a note says so,
    once, and nothing is remembered.
    """
    try:
        place = folder()
        place.parent.mkdir(parents=True, exist_ok=True)
        for path in (place, *(place.joinpath(*names[: i + 1]) for i in range(len(names)))):
            path.mkdir(mode=0o700, exist_ok=True)
            if wrong := _wrong(path.lstat(), stat.S_ISDIR):
                _note(f"the cache {printable(path)} is ignored: {wrong}")
                return None
    except (OSError, RuntimeError, ValueError):  # a read-only home only costs the time
        return None
    return place.joinpath(*names)


def read(name: str, most: int = MOST_BYTES) -> bytes:
    """The bytes of a file in the cache folder; b"" when it is missing, too large or not ours."""
    place = private()
    if place is None:
        return b""
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    try:
        with open(os.open(place / name, flags | getattr(os, "O_BINARY", 0)), "rb") as file:
            there = os.fstat(file.fileno())
            if wrong := _wrong(there, stat.S_ISREG):
                _note(f"the cache {printable(place / name)} is ignored: {wrong}")
                return b""
            return file.read() if there.st_size <= most else b""
    except (OSError, ValueError):
        return b""


def write(name: str, content: bytes | memoryview) -> None:
    """Put a file into the cache folder, if that may be trusted; a failure only costs time."""
    place = private()
    try:
        if place is not None:
            atomic.write(place, name, content, private=True)
    except BadArtifacts:
        pass


def recall(name: str) -> dict[str, Any]:
    """All that the JSON file of this name holds; a broken one is empty."""
    try:
        entries = json.loads(read(name))
    except (ValueError, RecursionError):
        return {}
    return entries if isinstance(entries, dict) else {}


def remember(name: str, key: str, value: Any, most: int) -> None:
    """Put an entry into the file of this name, which keeps the newest `most`.

    Read again just before: another process may have written meanwhile. If two write at once one
    entry is lost, and is found out once more.
    """
    known = {old: kept for old, kept in recall(name).items() if old != key} | {key: value}
    try:
        write(name, json.dumps(dict(list(known.items())[-most:])).encode())
    except ValueError:  # a key that no text can hold
        pass


def seal(place: Path) -> None:
    """Note the hashes of the files that another program left in a folder of `private`."""
    content = json.dumps(_hashes(place)).encode()
    try:
        atomic.write(place, SEAL, content, private=True)
    except BadArtifacts:
        pass


def sealed(place: Path) -> bool:
    """Clear a folder of `private` of what is not as `seal` left it; whether all of it was."""
    try:
        recorded = json.loads((place / SEAL).read_bytes())
    except (OSError, ValueError, RecursionError):
        recorded = None
    there = _hashes(place)
    if isinstance(recorded, dict) and recorded == there or not there:
        return True
    for name in there:
        (place / name).unlink(missing_ok=True)
    _note(f"the engines in {printable(place)} were changed or are half written: they are made anew")
    return False


def _hashes(place: Path) -> dict[str, str]:
    hashes: dict[str, str] = {}
    for path in sorted(place.iterdir()):
        if path.name == SEAL or path.is_dir() and not path.is_symlink():
            continue
        linked = path.is_symlink() or not path.is_file()
        hashes[path.name] = "link" if linked else _sha256(path)
    return hashes


def _sha256(path: Path) -> str:
    hasher = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(2**20):
            hasher.update(block)
    return hasher.hexdigest()


def _wrong(there: os.stat_result, kind: Any) -> str:
    """Why a file or folder is not to be trusted, as the end of a sentence; "" when it is."""
    if not kind(there.st_mode):
        return "it is a link, or not of the kind that it should be; remove it"
    if not hasattr(os, "geteuid"):  # Windows: a profile's folder is its user's alone
        return ""
    if there.st_uid != os.geteuid():
        return "it belongs to another user; set ALM_CACHE to a folder of your own"
    if there.st_mode & FOREIGN_WRITERS:
        return "others may write to it; remove it, or: chmod -R go-w it"
    return ""


@lru_cache(64)
def _note(sentence: str) -> None:
    """Once; without a handler of the caller's, Python writes it to stderr as it is."""
    LOG.warning("note: %s", sentence)
