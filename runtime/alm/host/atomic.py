"""Files written whole or not at all: beside their place, then renamed, and never through a link.

A folder of artifacts may come from anywhere. A link that lies in it must not make us overwrite what
it leads to, so the new file has a name that nobody can guess and is created only where nothing
lies, and every folder between the root and the file is opened without following links.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from alm.errors import AlmError, BadArtifacts
from alm.parsing import check_name

# Where the system can name files relative to an open folder, nobody can exchange that meanwhile.
# Windows cannot: there every folder is looked at just before it is used.
BY_HANDLE = {os.open, os.mkdir, os.rename, os.unlink, os.stat} <= os.supports_dir_fd
CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0)
CREATE |= getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
FOLDER = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_CLOEXEC", 0)
STALE = 3600.0  # seconds after which nobody goes on with what he writes
REPARSE = 0x400  # FILE_ATTRIBUTE_REPARSE_POINT: a link or a junction on Windows


@contextlib.contextmanager
def replacing(
    root: Path, name: str, private: bool = False, by_handle: bool = BY_HANDLE
) -> Iterator[IO[bytes]]:
    """Open a new file that takes the place of `name` below `root` when the block ends.

    If the block fails the new file is removed and the old one stays. What lies there already is
    replaced, not written to: a link loses its place, and the file that it leads to stays.

    Args:
        root: an existing folder; it may be a link, since whoever typed it meant where it leads.
        name: parts joined by "/"; folders that are missing are made.
        private: nobody but the user may read the file.
        by_handle: whether folders are held open, so that nobody can exchange one meanwhile.

    Raises:
        BadArtifacts: a name that leads outside, a folder that is a link, something other than a
            regular file in the file's place, or the system refused: no room, no permission.
    """
    check_name(name)
    try:
        with _opened(root, name.split("/")[:-1], by_handle) as folder:
            yield from folder.replace(name.split("/")[-1], 0o600 if private else 0o666)
    except AlmError:
        raise
    except OSError as error:
        raise BadArtifacts(
            f"{Path(root) / name} cannot be written: {error.strerror or error}"
        ) from error


@contextlib.contextmanager
def replacing_at(path: Path) -> Iterator[IO[bytes]]:
    """The same of a path that the user typed, whose name may be any that the system takes.

    Raises BadArtifacts as `replacing`.
    """
    try:
        with _opened(path.parent, [], BY_HANDLE) as folder:
            yield from folder.replace(path.name, 0o666)
    except AlmError:
        raise
    except OSError as error:
        raise BadArtifacts(f"{path} cannot be written: {error.strerror or error}") from error


def write(
    root: Path,
    name: str,
    content: bytes | memoryview,
    private: bool = False,
    by_handle: bool = BY_HANDLE,
) -> None:
    """Write a whole file; see `replacing`."""
    with replacing(root, name, private, by_handle) as file:
        file.write(content)


def adopt(root: Path, name: str, new: Path, by_handle: bool = BY_HANDLE) -> None:
    """Give a finished file, on the same disk, the place of `name` below `root`; see `replacing`."""
    check_name(name)
    try:
        with _opened(root, name.split("/")[:-1], by_handle) as folder:
            os.replace(new, folder.name(name.split("/")[-1]), dst_dir_fd=folder.handle)
    except OSError as error:
        raise BadArtifacts(
            f"{Path(root) / name} cannot be written: {error.strerror or error}"
        ) from error


def new_folder(place: Path) -> Path:
    """A new folder beside `place`, hidden, with a name that nobody can guess; to be renamed later.

    Raises:
        BadArtifacts: the system refused.
    """
    folder = place.with_name(_beside(place.name))
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir()
    except OSError as error:
        raise BadArtifacts(f"{place} cannot be written: {error.strerror or error}") from error
    return folder


def leftovers(place: Path) -> list[Path]:
    """What `new_folder` or `replacing` made for this place in runs that were killed."""
    pattern = f".{place.name}."
    return [
        path
        for path in place.parent.glob(".*.new")
        if path.name.startswith(pattern) and not path.is_symlink()
    ]


def clear(place: Path) -> None:
    """Remove what killed runs left for this place; what was written to of late is another run's."""
    for path in leftovers(place):
        with contextlib.suppress(OSError):
            inside = path.rglob("*") if path.is_dir() else ()
            newest = max(each.lstat().st_mtime for each in (path, *inside))
            if time.time() - newest < STALE:
                continue
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def check_room(folder: Path, size: int, what: Path) -> None:
    """Refuse, with BadArtifacts, what does not fit on a folder's disk, before it is written."""
    try:
        free = shutil.disk_usage(folder).free
    except OSError as error:
        raise BadArtifacts(f"{what} cannot be written: {error.strerror or error}") from error
    if free < size:
        raise BadArtifacts(f"{what} takes {size} bytes, and there is room for {free}")


def _beside(name: str) -> str:
    return f".{name:.100}.{secrets.token_hex(8)}.new"


class _Folder:
    """A folder whose files are named by handle where the system can, by path elsewhere."""

    def __init__(self, path: Path, handle: int | None) -> None:
        self.path, self.handle = path, handle

    def name(self, name: str) -> str:
        return name if self.handle is not None else str(self.path / name)

    def looked_at(self, name: str) -> os.stat_result:
        return os.stat(self.name(name), dir_fd=self.handle, follow_symlinks=False)

    def inner(self, part: str) -> _Folder:
        """A folder in this one, made if it is missing.

        Raises:
            BadArtifacts: it is a link, or no folder.
        """
        with contextlib.suppress(FileExistsError):
            os.mkdir(self.name(part), dir_fd=self.handle)
        there = self.looked_at(part)
        linked = getattr(there, "st_file_attributes", 0) & REPARSE
        if not stat.S_ISDIR(there.st_mode) or linked:
            raise BadArtifacts(
                f"{self.path / part} is refused: it is a link or no folder, and nothing is written "
                "through it"
            )
        if self.handle is None:
            return _Folder(self.path / part, None)
        flags = FOLDER | getattr(os, "O_NOFOLLOW", 0)
        return _Folder(self.path / part, os.open(part, flags, dir_fd=self.handle))

    def replace(self, name: str, mode: int) -> Iterator[IO[bytes]]:
        """Yield the new file once, then rename it."""
        with contextlib.suppress(FileNotFoundError):
            there = self.looked_at(name).st_mode
            if not (stat.S_ISREG(there) or stat.S_ISLNK(there)):
                raise BadArtifacts(f"{self.path / name} is not a regular file; it is left alone")
        new = _beside(name)
        handle = os.open(self.name(new), CREATE, mode, dir_fd=self.handle)
        try:
            with open(handle, "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            places = {"src_dir_fd": self.handle, "dst_dir_fd": self.handle}
            os.replace(self.name(new), self.name(name), **places)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(self.name(new), dir_fd=self.handle)
            raise

    def close(self) -> None:
        if self.handle is not None:
            os.close(self.handle)


@contextlib.contextmanager
def _opened(root: Path, parts: list[str], by_handle: bool) -> Iterator[_Folder]:
    folder = _Folder(Path(root), os.open(root, FOLDER) if by_handle else None)
    try:
        for part in parts:
            folder, outer = folder.inner(part), folder
            outer.close()
        yield folder
    finally:
        folder.close()
