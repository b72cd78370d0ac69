"""The file of results: a row a file, added as it comes, and gone on with after any end of a run.

A row is written by one call, so that a run that is killed leaves at most its last line unfinished;
the next run cuts that off. What was written outlives the process at once, and a failure of the
machine but for the last second.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from alm.batch import rows
from alm.batch.files import File, mark, shown
from alm.batch.lock import Lock
from alm.errors import AlmError, BadArtifacts, BadOption, MissingFile
from alm.host import atomic
from alm.parsing import check_name

SYNCED = 1.0  # seconds between calls that wait for the disk


@dataclass(frozen=True)
class Todo:
    """What a run has to do: files without a row, and how many have one that stays."""

    files: list[File]
    kept: int
    changed: int  # of `files`, those that are not what they were when they were answered
    failed: int  # of the rows that stay, those with an error


class Results:
    """The rows at `path`, which no other run may write to meanwhile; a context manager.

    Nothing that is there is changed before `begin`.
    """

    def __init__(self, path: Path, made_with: Mapping[str, Any], fresh: bool = False) -> None:
        """Read what is there; with `fresh` it is going to be replaced.

        Raises:
            BadOption: another run writes to it, it is no file of results, or one of another model,
                prompt or options.
            MissingFile: its folder is not there.
            AlmError: the system refused.
        """
        self.path, self.made_with, self.fresh = os.path.realpath(path), dict(made_with), fresh
        self._check(path)
        self._lock = Lock(self.path)
        self._handle, self._size = -1, 0
        self._synced, self._waiting = time.monotonic(), False  # for the disk
        self._known: dict[str, rows.Known] = {}
        self._stale: set[int] = set()  # where lines begin that are to be left out
        try:
            self._read()
        except BaseException:
            self._lock.release()
            raise

    @property
    def shown(self) -> str:
        """Where the rows are, as text."""
        return shown(self.path)

    def __enter__(self) -> Results:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def todo(self, files: Iterable[File], retry_failed: bool = False) -> Todo:
        """Which of these files are to be answered; their rows, if any, are left out by `begin`."""
        wanted: list[File] = []
        kept = changed = failed = 0
        for file in files:
            known = self._known.get(file.path)
            if known is None:
                wanted.append(file)
                continue
            other = _changed(known)
            if other or (known.failed and retry_failed):
                wanted.append(file)
                changed += other
                self._stale.add(known.start)
            else:
                kept += 1
                failed += known.failed
        return Todo(wanted, kept, changed, failed)

    def begin(self) -> None:
        """Cut off what a killed run left unfinished, and rows that are to be made anew.

        Raises:
            AlmError: the system refused; what was there is as it was.
        """
        if self._stale:
            self._rewrite()
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_CLOEXEC", 0)
            self._handle = os.open(self.path, flags | getattr(os, "O_BINARY", 0), 0o666)
            os.ftruncate(self._handle, self._size)
        except OSError as error:
            raise self._refused(error) from error

    def add(self, row: rows.Row) -> None:
        """Write a row.

        Raises:
            AlmError: the disk is full, say; the row is not there then, not even in part. Or it was
                made with something else.
        """
        if other := _difference(row["made_with"], self.made_with):
            raise BadArtifacts(
                f"an answer was made with {other[0]} where {other[1]} was wanted: the artifacts or "
                "adapters have changed, or are others on another machine"
            )
        text = memoryview(rows.line(row))
        try:
            left = text
            while left:  # more than once only where the disk is all but full
                left = left[os.write(self._handle, left) :]
            self._size += len(text)
            self._waiting = True
            if (now := time.monotonic()) - self._synced >= SYNCED:
                os.fsync(self._handle)
                self._synced, self._waiting = now, False
        except OSError as error:
            os.ftruncate(self._handle, self._size)
            raise self._refused(error) from error

    def close(self) -> None:
        """Wait for the disk, and let other runs write.

        Raises:
            AlmError: the disk refused.
        """
        try:
            if self._waiting:
                os.fsync(self._handle)
        except OSError as error:
            raise self._refused(error) from error
        finally:
            if self._handle >= 0:
                os.close(self._handle)
            self._handle, self._waiting = -1, False
            self._lock.release()

    def _check(self, given: Path) -> None:
        folder, name = os.path.split(self.path)
        try:
            check_name(name)
            there = os.stat(self.path).st_mode if os.path.exists(self.path) else stat.S_IFREG
        except (OSError, BadArtifacts) as error:
            raise BadOption(f"--out {given}: {error}") from error
        if not os.path.isdir(folder):
            raise MissingFile(f"there is no folder {folder} to write {name} to")
        if not stat.S_ISREG(there):
            what = "a folder" if stat.S_ISDIR(there) else "no regular file"
            raise BadOption(f"--out {given} is {what}; wanted a file that rows are added to")

    def _read(self) -> None:
        """Learn what rows there are, and how far they reach."""
        if not os.path.exists(self.path):
            return
        try:
            with open(self.path, "rb") as file:
                begin = file.read(len(rows.BEGIN))
                if not _may_begin(begin):
                    raise BadOption(
                        f"{self.path} holds no results of alm batch; give another file: --out FILE"
                    )
                if self.fresh:
                    return
                file.seek(0)
                for number, text in enumerate(file, 1):
                    if not self._line(number, text):
                        break
        except OSError as error:
            raise self._refused(error) from error

    def _line(self, number: int, text: bytes) -> bool:
        """Take in a line; False for one that its end cut off."""
        try:
            known = rows.read(text, self._size)
            whole = text.endswith(b"\n")
        except ValueError:
            known, whole = None, False
            if text.endswith(b"\n") or not _may_begin(text[: len(rows.BEGIN)]):
                raise BadOption(
                    f"line {number} of {self.path} is no row of alm batch; give another file "
                    "(--out FILE), or write this one anew: --fresh"
                ) from None
        if known is None or not whole:
            return False
        if other := _difference(known.made_with, self.made_with):
            raise BadOption(
                f"{self.path} was made with {other[0]}, and now it is {other[1]}; give another "
                "file (--out FILE), or write this one anew: --fresh"
            )
        if earlier := self._known.get(known.path):
            self._stale.add(earlier.start)
        self._known[known.path] = replace(known, made_with={})  # the same for millions of rows
        self._size = known.end
        return True

    def _rewrite(self) -> None:
        """Leave out stale rows: written beside, then renamed."""
        folder, name = os.path.split(self.path)
        with open(self.path, "rb") as old, atomic.replacing(Path(folder), name) as new:
            size = start = 0
            for text in old:
                if start >= self._size:
                    break
                if start not in self._stale:
                    new.write(text)
                    size += len(text)
                start += len(text)
        self._size, self._stale = size, set()

    def _refused(self, error: OSError) -> AlmError:
        return BadArtifacts(f"{self.path} cannot be written: {error.strerror or error}")


def _changed(known: rows.Known) -> bool:
    """Whether the file is another than the one that the row is about; one that is gone is not."""
    now = mark(known.path, read=False)
    if now.told == known.mark.told or (now.size is None and not known.failed):
        return False
    # Copies and checkouts give a file another time, and the same content.
    same = known.mark.sha256 is not None and now.size == known.mark.size
    return not (same and mark(known.path).sha256 == known.mark.sha256)


def _may_begin(text: bytes) -> bool:
    """Whether a row may have been begun so; a machine that failed may leave zeros."""
    return rows.BEGIN.startswith(text[: len(rows.BEGIN)]) or not text.strip(b"\0")


def _difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> tuple[str, str] | None:
    """The first thing in which a row was made otherwise, in words: as it was, and as it is now."""
    for (name, was), now in _pairs(old, new):
        if was != now:
            return f"{name} {_said(was)}", _said(now)
    return None


def _pairs(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[tuple[tuple[str, Any], Any]]:
    for name in {**new, **old}:
        was, now = old.get(name), new.get(name)
        if isinstance(was, Mapping) and isinstance(now, Mapping):
            yield from _pairs(was, now)
        else:
            yield (name, was), now


def _said(value: Any) -> str:
    return "none" if value is None else f"{value!r:.80}"
