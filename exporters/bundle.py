"""Files -> artifacts: everything is written beside and moved into place at once, or not at all."""

from __future__ import annotations

import ctypes
import os
import shutil
import sys
from importlib import metadata
from pathlib import Path
from types import TracebackType

from alm import atomic, verify
from alm import manifest as manifests
from alm.errors import AlmError, BadArtifacts
from alm.manifest import File, Manifest

TOOLS = ("torch", "transformers", "peft", "onnx", "onnxscript", "onnx-ir", "onnxsim", "onnxruntime")
EXCHANGE = 2  # RENAME_EXCHANGE of renameat2(2)
AT_FDCWD = -100


class Bundle:
    """A folder under construction beside the one it will replace.

        with Bundle(Path("artifacts")) as bundle:
            ...write files into bundle.folder...
            bundle.publish(manifest)

    Leaving the block without `publish` (an error, an interrupt) removes the construction site; a
    kill leaves it behind, named so that the next export clears it. The old artifacts stay whole.
    """

    def __init__(self, out: Path) -> None:
        self.out = out.resolve()
        self.old = _existing(self.out)
        self.folder: Path  # there is one within the block

    def __enter__(self) -> Bundle:
        for left in atomic.leftovers(self.out):
            shutil.rmtree(left, ignore_errors=True)
        self.folder = atomic.new_folder(self.out)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)

    def file(self, path: Path) -> File:
        """A file of this folder as the manifest lists it."""
        name = path.relative_to(self.folder).as_posix()
        with path.open("rb") as stream:
            return File(name, path.stat().st_size, verify.digest(stream))

    def publish(self, manifest: Manifest) -> None:
        """Write the manifest, keep what of the old folder still belongs, and change places."""
        listed = {file.name for file in manifest.files()}
        gone = {f.name for f in self.old.files()} - listed if self.old else set()
        if self.out.is_dir():
            for path in sorted(self.out.rglob("*")):
                name = path.relative_to(self.out)
                target = self.folder / name
                if path.is_dir() or target.exists() or name.as_posix() in gone:
                    continue
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(path, target, follow_symlinks=False)
        manifest.save(self.folder)
        _flush(self.folder)
        _swap(self.folder, self.out)


def _existing(out: Path) -> Manifest | None:
    """The manifest of a folder that is already there.

    Raises:
        BadArtifacts: `out` is a file, or a folder that holds something else than artifacts.
    """
    if not out.exists():
        return None
    if not out.is_dir():
        raise BadArtifacts(f"{out} is a file; --out wants a folder")
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
    found = {"python": ".".join(str(n) for n in sys.version_info[:3])}
    for name in TOOLS:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
