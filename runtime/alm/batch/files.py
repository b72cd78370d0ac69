"""The files that are meant by paths, folders and patterns, each of them once."""

from __future__ import annotations

import glob
import hashlib
import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from alm.errors import BadOption, MissingFile

# What is taken of a folder. Those that cannot be read are taken too: their rows say why.
SUFFIXES = tuple(
    ".wav .flac .mp3 .mp2 .ogg .oga .opus .aif .aiff .aifc .au .snd .caf .w64 .rf64 "
    ".m4a .aac .wma .webm .amr".split()
)
CHUNK = 2**20  # bytes hashed at a time


@dataclass(frozen=True)
class File:
    """A file to be answered.

    `given` is its name as it was typed or found; `path` is absolute, and tells files apart: two
    names of one file in one folder are one file, and a link is another file than what it leads to.
    """

    given: str
    path: str


@dataclass(frozen=True)
class Mark:
    """What a file was when it was looked at: bytes and nanoseconds; None where nothing was there.

    `sha256` is that of its content (hexadecimal), where it was read.
    """

    size: int | None = None
    mtime_ns: int | None = None
    sha256: str | None = None

    @property
    def told(self) -> tuple[int | None, int | None]:
        """What the system tells without reading it."""
        return self.size, self.mtime_ns


def find(words: Iterable[str]) -> list[File]:
    """The files of paths, folders (below them too, audio by its suffix) and patterns, in order.

    A path that exists is never a pattern. In folders hidden files are left out, and links to
    folders are followed. A path that leads to no file is kept: its row will say so.

    Raises:
        MissingFile: nothing that was given is there, a folder without any audio, or a pattern that
            fits nothing.
        BadOption: a folder cannot be read, or stdin is wanted.
    """
    found: dict[str, File] = {}
    folders: dict[str, str] = {}
    for word in words:
        for name in _named(word):
            file = File(name, _absolute(name, folders))
            found.setdefault(file.path, file)
    if found and not any(os.path.lexists(path) for path in found):
        first = next(iter(found.values())).given
        more = ", nor any other that was given" if len(found) > 1 else ""
        raise MissingFile(f"there is no file {first}{more}; wanted audio files or folders")
    return list(found.values())


def mark(path: str, read: bool = True) -> Mark:
    """What the file is now; with `read` its content is hashed."""
    try:
        there = os.stat(path)
    except (OSError, ValueError):  # its answer says in words what is wrong
        return Mark()
    told = Mark(there.st_size, there.st_mtime_ns)
    if not read or not stat.S_ISREG(there.st_mode):  # a pipe would wait for its writer
        return told
    digest = hashlib.sha256()
    try:
        with open(path, "rb") as file:
            while block := file.read(CHUNK):
                digest.update(block)
    except OSError:
        return told
    return replace(told, sha256=digest.hexdigest())


def shown(name: Any) -> str:
    """A name, or a sentence with one, as text that is UTF-8."""
    return os.fsencode(str(name)).decode("utf-8", "replace")


def _named(word: str) -> Iterator[str]:
    if word == "-":
        raise BadOption("alm batch reads files, and - is stdin; alm-run takes a clip from there")
    if os.path.isdir(word):
        inside = _audio(word)
        if not inside:
            raise MissingFile(
                f"there is no audio in the folder {word}; wanted files that end in "
                f"{', '.join(SUFFIXES[:4])} or the like"
            )
        yield from inside
    elif os.path.lexists(word) or not glob.has_magic(word):
        yield word
    else:
        fitting = sorted(glob.glob(word, recursive=True), key=_order)
        if not fitting:
            raise MissingFile(f"no file fits {word}; wanted audio files or folders")
        for name in fitting:
            yield from _audio(name) if os.path.isdir(name) else [name]


def _audio(folder: str) -> list[str]:
    """The audio below a folder; itself, where it has none but a clip's name, and was meant so."""
    inside = sorted(_inside(folder), key=_order)
    meant = folder.rstrip(os.sep).lower().endswith(SUFFIXES)
    return inside or ([folder] if meant else [])


def _inside(folder: str) -> Iterator[str]:
    seen: set[str] = set()  # a link may lead to a folder above it

    def refuse(error: OSError) -> None:
        raise BadOption(f"the folder {error.filename} cannot be read: {error.strerror}")

    for place, folders, names in os.walk(folder, onerror=refuse, followlinks=True):
        real = os.path.realpath(place)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            if name.lower().endswith(SUFFIXES) and not name.startswith("."):
                yield os.path.join(place, name)


def _order(path: str) -> list[str]:
    return path.split(os.sep)  # a folder's files stand together


def _absolute(name: str, folders: dict[str, str]) -> str:
    """The path of a file in the folder that is meant; `folders` remembers those seen before."""
    folder, last = os.path.split(name.rstrip(os.sep) or name)
    if last in ("", ".", ".."):
        return os.path.realpath(name)
    if folder not in folders:
        folders[folder] = os.path.realpath(folder)
    return os.path.join(folders[folder], last)
