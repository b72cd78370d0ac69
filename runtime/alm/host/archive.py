"""An .alm file as a folder: its members are read where they lie, and nothing is unpacked.

A path inside is the file's path with the member's name behind it: model.alm/decoder.onnx.
"""

from __future__ import annotations

import io
import os
import stat
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import IO

from alm.errors import BadArtifacts, BadOption, MissingFile
from alm.host import ziplayout
from alm.host.ziplayout import Layout, Member
from alm.parsing import check_name

SUFFIX = ".alm"
MOST_KNOWN = 16  # files whose layout is remembered
MOST_CONTENT = 2**31  # bytes that are read at once: those of a graph, as protobuf bounds it
CHUNK = 2**20

_known: OrderedDict[tuple[object, ...], Layout] = OrderedDict()
_lock = Lock()


@dataclass(frozen=True)
class Inside:
    """A member, and the file that holds it."""

    file: Path
    member: Member


class Section(io.RawIOBase):
    """A member as a file of its own, read from the file that holds it."""

    def __init__(self, stream: IO[bytes], inside: Inside) -> None:
        super().__init__()
        self._stream, self._at = stream, 0
        self.start, self.bytes = inside.member.start, inside.member.bytes
        self.name = str(inside.file / inside.member.name)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def fileno(self) -> int:
        """Of the whole file: what is read by it begins at `start`."""
        return self._stream.fileno()

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self.bytes}[whence]
        self._at = max(0, base + offset)
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: memoryview) -> int:  # pyright: ignore[reportIncompatibleMethodOverride]
        count = max(0, min(len(buffer), self.bytes - self._at))
        self._stream.seek(self.start + self._at)
        data = self._stream.read(count)
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)

    def close(self) -> None:
        if not self.closed:
            self._stream.close()
        super().close()


def is_one(path: Path) -> bool:
    """Whether a path that is wanted as a folder is a file: then it must be an .alm."""
    return os.path.isfile(path)


def only_folder(path: Path, why: str) -> None:
    """Refuse, with BadOption, an .alm file where only a folder will do."""
    if is_one(path):
        raise BadOption(f"{why}, and {path} is one file; make a folder: alm unpack {path} DIR")


def holding(path: Path) -> tuple[Path, str] | None:
    """The .alm file that a path leads into, and the name inside; None where it leads into none."""
    if os.path.exists(path):
        return None
    for above in path.parents:
        if os.path.isfile(above):
            return above, path.relative_to(above).as_posix()
        if os.path.isdir(above):
            return None
    return None


def layout(file: Path) -> Layout:
    """What is in an .alm file.

    Raises:
        MissingFile, BadArtifacts: there is none, or it is not as `alm pack` writes it.
    """
    with opened(file) as stream:
        return _layout(file, stream)


def names(file: Path) -> list[str]:
    """The members' names; raises as `layout`."""
    return [member.name for member in layout(file).members]


def find(file: Path, name: str) -> Inside:
    """The member of that name; MissingFile, BadArtifacts as `layout`, or where there is none."""
    check_name(name)
    for member in layout(file).members:
        if member.name == name:
            return Inside(file, member)
    raise MissingFile(f"there is no {name!r} in {file}; pack it again")


def section(file: Path, name: str) -> IO[bytes]:
    """The member as an open file; raises as `find`."""
    inside = find(file, name)
    return io.BufferedReader(Section(opened(file), inside), CHUNK)  # pyright: ignore


def content(file: Path, name: str) -> bytes:
    """All of a member; raises as `find`, and where it has more than MOST_CONTENT bytes."""
    if find(file, name).member.bytes > MOST_CONTENT:
        raise BadArtifacts(f"{name!r} in {file} has more than {MOST_CONTENT} bytes")
    with section(file, name) as stream:
        return stream.read()


def opened(file: Path) -> IO[bytes]:
    """The .alm file itself, which is a regular one; whoever typed a link meant where it leads."""
    try:
        stream = open(file, "rb", opener=_not_waiting)  # noqa: SIM115 -- handed on
    except FileNotFoundError:
        raise MissingFile(f"there is no file {file}") from None
    except OSError as error:
        raise BadArtifacts(f"{file} cannot be read: {error.strerror or error}") from None
    if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
        stream.close()
        raise BadArtifacts(f"{file} is no regular file")
    return stream


def called(file: Path) -> tuple[str, str]:
    """The folder and the name of an .alm file for a backend that follows no link and wants UTF-8.

    Raises:
        BadArtifacts: it has no such name.
    """
    real = file.resolve()
    try:
        return os.fsencode(real.parent).decode("utf-8"), os.fsencode(real.name).decode("utf-8")
    except UnicodeDecodeError:
        raise BadArtifacts(f"{file} lies under a name that is not UTF-8; rename it") from None


@contextmanager
def unchanged(file: Path) -> Iterator[None]:
    """Refuse, with BadArtifacts, a file that was written to or exchanged within the block."""
    with opened(file) as stream:
        before = key(os.fstat(stream.fileno()))
    yield
    with opened(file) as stream:
        if key(os.fstat(stream.fileno())) != before:
            raise BadArtifacts(f"{file} changed while it was read; try again")


def key(status: os.stat_result) -> list[int]:
    """Tells a file apart from what it becomes when somebody writes to it.

    Its time of modification can be set back; that of its last change, ctime, cannot.
    """
    return [status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns]


def _layout(file: Path, stream: IO[bytes]) -> Layout:
    mark = (str(file), *key(os.fstat(stream.fileno())))
    with _lock:
        if mark in _known:
            return _known[mark]
    made = ziplayout.read(stream, os.fstat(stream.fileno()).st_size, str(file))
    with _lock:
        _known[mark] = made
        while len(_known) > MOST_KNOWN:
            _known.popitem(last=False)
    return made


def _not_waiting(path: str, flags: int) -> int:
    """Of a pipe, which is refused, no writer is waited for."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))
