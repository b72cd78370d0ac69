"""Files -> artifacts: everything is written beside and moved into place at once, or not at all."""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import sys
from importlib import metadata
from pathlib import Path
from types import TracebackType

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

from alm.artifacts import manifest as manifests
from alm.artifacts import verify
from alm.artifacts.manifest import File, Manifest
from alm.errors import AlmError, BadArtifacts
from alm.host import atomic
from exporters import layouts

TOOLS = ("torch", "transformers", "peft", "onnx", "onnxscript", "onnx-ir", "onnxsim", "onnxruntime")
EXCHANGE = 2  # RENAME_EXCHANGE of renameat2(2)
AT_FDCWD = -100
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class Bundle:
    """A folder under construction beside the one it will replace.

        with Bundle(Path("artifacts")) as bundle:
            ...write files into bundle.folder...
            bundle.publish(manifest)

    Leaving the block without `publish` (an error, an interrupt) removes the construction site; a
    kill leaves it behind, and the next export into the same folder clears it. The old artifacts
    stay whole. One export at a time works on a folder: the construction site is locked while its
    process lives.
    """

    def __init__(self, out: Path) -> None:
        """Look at `out`, and create nothing.

        Raises:
            BadArtifacts: it is no folder, or holds something else than artifacts, or may not be
                read.
        """
        try:
            self.out = out.resolve()
            self.old = _existing(self.out)
        except (OSError, ValueError, RuntimeError) as error:
            if isinstance(error, AlmError):
                raise
            raise unwritable(out, error) from error
        self.folder = self.out
        self._lock: int | None = None

    def __enter__(self) -> Bundle:
        try:
            self.out.parent.mkdir(parents=True, exist_ok=True)
            self._lock = _locked(self.out)
            for left in atomic.leftovers(self.out):
                shutil.rmtree(left, ignore_errors=True)
            self.folder = atomic.new_folder(self.out)
        except OSError as error:
            self._unlock()
            raise unwritable(self.out, error) from error
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        if self.folder != self.out:
            shutil.rmtree(self.folder, ignore_errors=True)
        self._unlock()
        if isinstance(error, OSError) and not isinstance(error, AlmError) and ours(error):
            raise unwritable(self.out, error) from error

    def _unlock(self) -> None:
        if self._lock is not None:
            self.out.with_name(f".{self.out.name}.lock").unlink(missing_ok=True)
            os.close(self._lock)  # the lock goes with it
            self._lock = None

    def file(self, path: Path) -> File:
        """A file of this folder as the manifest lists it."""
        return listed(self.folder, path.relative_to(self.folder).as_posix())

    def publish(self, manifest: Manifest) -> None:
        """Write the manifest, keep what of the old folder still belongs, and change places."""
        listed = {file.name for file in manifest.files()}
        gone = {f.name for f in self.old.files()} - listed if self.old else set()
        if self.out.is_dir():
            for path in sorted(self.out.rglob("*")):
                name = path.relative_to(self.out)
                target = self.folder / name
                stale = name.as_posix() in gone or name.parts[0] in layouts.own()
                if path.is_dir() or target.exists() or stale:
                    continue
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(path, target, follow_symlinks=False)
        manifest.save(self.folder)
        _flush(self.folder)
        _swap(self.folder, self.out)


def listed(folder: Path, name: str) -> File:
    """A file of a folder as the manifest lists it."""
    path = folder / name
    with path.open("rb") as stream:
        return File(name, path.stat().st_size, verify.digest(stream))


def unwritable(out: Path, error: Exception) -> BadArtifacts:
    """The sentence about a disk or a folder that takes no artifacts."""
    number = getattr(error, "errno", None)
    if number in FULL:
        return BadArtifacts(
            f"there is no room for the artifacts where {out} lies "
            f"({os.strerror(number)}); make room or give another --out: what was there is as it was"
        )
    reason = getattr(error, "strerror", None) or " ".join(str(error).split())[:200]
    return BadArtifacts(f"{str(out)[:200]} cannot be written: {reason}; give another --out")


def ours(error: OSError) -> bool:
    """Whether an error is of a disk that is full, or of a folder that may not be written."""
    return error.errno in (*FULL, errno.EACCES, errno.EPERM, errno.EROFS, errno.EIO)


def _locked(out: Path) -> int | None:
    """A lock beside `out` that goes with this process; None where the system has no such locks.

    Raises:
        BadArtifacts: another export is at work there.
    """
    if fcntl is None:
        return None
    path = out.with_name(f".{out.name}.lock")
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    while True:
        handle = os.open(path, flags, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(handle), os.stat(path)):
                return handle
            os.close(handle)  # its last holder took the file away after we had opened it
        except BlockingIOError as error:
            os.close(handle)
            raise BadArtifacts(
                f"another export is writing {out}; wait for it, or give another --out"
            ) from error
        except FileNotFoundError:
            os.close(handle)
        except OSError:  # a file system without locks
            os.close(handle)
            return None


def _existing(out: Path) -> Manifest | None:
    """The manifest of a folder that is already there.

    Raises:
        BadArtifacts: `out` is a file, or a folder that holds something else than artifacts.
    """
    if not out.exists():
        return None
    if not out.is_dir():
        kind = "a file" if out.is_file() else "no folder"
        raise BadArtifacts(f"{out} is {kind}; --out wants a folder")
    if not any(path.name != ".gitignore" for path in out.iterdir()):
        return None
    try:
        return manifests.load(out)
    except AlmError as error:
        if (out / manifests.NAME).exists():
            return None  # ours, but unreadable: it is replaced whole
        raise BadArtifacts(
            f"{out} is no artifact folder; give --out an empty or a new one"
        ) from error


def _flush(folder: Path) -> None:
    """Bytes on disk before the rename that makes them count."""
    for path in (*folder.rglob("*"), folder):
        if path.is_dir() and os.name == "nt":
            continue
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _swap(new: Path, out: Path) -> None:
    """Put `new` in the place of `out`, in one step where the system can exchange two names."""
    if not out.exists():
        new.rename(out)
        return
    if not _exchange(new, out):
        aside = out.with_name(f".{out.name}.old")
        shutil.rmtree(aside, ignore_errors=True)
        out.rename(aside)
        new.rename(out)
        shutil.rmtree(aside)


def _exchange(a: Path, b: Path) -> bool:
    """Linux swaps two names atomically: at no moment is there no artifact folder."""
    if sys.platform != "linux":
        return False
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is None:
        return False
    return rename(AT_FDCWD, os.fsencode(a), AT_FDCWD, os.fsencode(b), EXCHANGE) == 0


def tools() -> dict[str, str]:
    """Versions of what made the artifacts."""
    versions = {"python": ".".join(str(n) for n in sys.version_info[:3])}
    for name in TOOLS:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions
