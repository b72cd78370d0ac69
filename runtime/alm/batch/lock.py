"""One process at a time: a lock that the system takes back when its holder ends in any way."""

from __future__ import annotations

import contextlib
import os
import sys

from alm.errors import BadOption


class Lock:
    """A lock on `path`, held by a file beside it, `path`.lock, until `release`.

    What a run that was killed has left behind holds nobody up. Whoever waits for no one gets it.
    """

    def __init__(self, path: str) -> None:
        """Take it.

        Raises:
            BadOption: another process holds it, or the file beside cannot be locked.
        """
        self.path, self._of = f"{path}.lock", path
        while True:
            self._handle = self._opened()
            if not self._lock():
                holder = self._holder()
                os.close(self._handle)
                raise BadOption(
                    f"{path} is being written by another run{holder}; wait for it, or give "
                    "another file: --out FILE"
                )
            if self._mine():
                break
            os.close(self._handle)  # its last holder has removed it meanwhile
        with contextlib.suppress(OSError):
            os.ftruncate(self._handle, 0)
            os.write(self._handle, f"{os.getpid()}\n".encode())

    def release(self) -> None:
        """Give it back."""
        if self._handle < 0:
            return
        with contextlib.suppress(OSError):  # Windows removes no open file: it stays, unlocked
            os.unlink(self.path)
        os.close(self._handle)
        self._handle = -1

    def _opened(self) -> int:
        flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0)
        try:
            return os.open(self.path, flags, 0o666)
        except OSError as error:
            raise BadOption(f"{self.path} cannot be made: {error.strerror or error}") from error

    def _lock(self) -> bool:
        try:
            if sys.platform == "win32":
                import msvcrt

                os.lseek(self._handle, 2**30, os.SEEK_SET)  # behind what others read
                msvcrt.locking(self._handle, msvcrt.LK_NBLCK, 1)
                os.lseek(self._handle, 0, os.SEEK_SET)
            else:
                import fcntl

                fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            return False
        except OSError as error:
            os.close(self._handle)
            raise BadOption(
                f"{self.path} cannot be locked here ({error.strerror or error}); give a file on "
                "another disk: --out FILE"
            ) from error
        return True

    def _mine(self) -> bool:
        """Whether what is locked is still what has the name."""
        try:
            there = os.stat(self.path)
        except OSError:
            return False
        held = os.fstat(self._handle)
        return (there.st_dev, there.st_ino) == (held.st_dev, held.st_ino)

    def _holder(self) -> str:
        with contextlib.suppress(OSError):
            number = os.read(self._handle, 20).strip()
            if number.isdigit():
                return f" (process {int(number)})"
        return ""
