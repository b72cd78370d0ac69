"""Arrays in a folder of the user's: named by what they were made of, checked, and bounded.

A file is the sha256 of what follows, the length of a JSON header, the header (each array's name,
dtype and shape) and the arrays' bytes in its order. What is damaged counts as not there.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from alm.errors import BadArtifacts, BadOption
from alm.host import atomic
from alm.parsing import printable

MOST_BYTES = 2**30  # of all files of ours in the folder
DTYPES = ("float32", "float16", "int8", "int64")
DIGEST, LENGTH, MOST_HEADER = 32, 4, 2**20
LOG = logging.getLogger("alm")
OURS = re.compile(r"[a-z]+-[0-9a-f]{64}\.alm")


class Folder:
    """What one model keeps in a folder that it may share with others."""

    def __init__(self, path: Path, model: bytes, most_bytes: int = MOST_BYTES) -> None:
        """`model` tells models apart whose arrays differ.

        Raises:
            BadOption: it can be no folder.
        """
        self.path, self.model, self.most_bytes = path, model, most_bytes
        self._refused = False
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            why = error.strerror or error
            raise BadOption(f"the cache {printable(path)} can be no folder: {why}") from error

    def get(self, kind: str, key: bytes) -> dict[str, np.ndarray] | None:
        """The arrays under this key, if they are there and whole."""
        path = self.path / self._name(kind, key)
        try:
            content = _content(path, self.most_bytes)
            os.utime(path)  # the last to go
        except OSError:
            return None
        return None if content is None else unpacked(content)

    def put(self, kind: str, key: bytes, arrays: Mapping[str, np.ndarray]) -> None:
        """Keep arrays, unless they alone are too many; those used longest ago make room."""
        content = packed(arrays)
        if len(content) > self.most_bytes or self._refused:
            return
        try:
            atomic.write(self.path, self._name(kind, key), content, private=True)
            self._make_room()
        except (BadArtifacts, OSError) as error:
            self._refused = True
            LOG.warning("nothing more is kept in %s: %s", printable(self.path), error)

    def _name(self, kind: str, key: bytes) -> str:
        sha256 = hashlib.sha256(len(self.model).to_bytes(8, "little") + self.model + key)
        return f"{kind}-{sha256.hexdigest()}.alm"

    def _make_room(self) -> None:
        files: list[tuple[float, int, str]] = []
        for entry in os.scandir(self.path):
            if OURS.fullmatch(entry.name) and entry.is_file(follow_symlinks=False):
                there = entry.stat(follow_symlinks=False)
                files.append((there.st_mtime, there.st_size, entry.path))
        excess = sum(size for _, size, _ in files) - self.most_bytes
        for _, size, path in sorted(files):
            if excess <= 0:
                break
            Path(path).unlink(missing_ok=True)  # another run may have been faster
            excess -= size


def packed(arrays: Mapping[str, np.ndarray]) -> bytes:
    """The content of a file."""
    header = {name: [array.dtype.name, list(array.shape)] for name, array in arrays.items()}
    text = json.dumps(header).encode()
    rows = [np.ascontiguousarray(array).tobytes() for array in arrays.values()]
    body = b"".join([len(text).to_bytes(LENGTH, "little"), text, *rows])
    return hashlib.sha256(body).digest() + body


def unpacked(content: bytes) -> dict[str, np.ndarray] | None:
    """The arrays of a file's content; None where it is not what `packed` made."""
    body = memoryview(content)[DIGEST:]
    if hashlib.sha256(body).digest() != content[:DIGEST] or len(body) < LENGTH:
        return None
    at = LENGTH + int.from_bytes(body[:LENGTH], "little")
    if at > min(len(body), MOST_HEADER):
        return None
    try:
        header = {
            str(name): (str(dtype), tuple(int(size) for size in shape))
            for name, (dtype, shape) in json.loads(bytes(body[LENGTH:at])).items()
        }
    except (ValueError, TypeError, AttributeError, RecursionError):
        return None
    arrays: dict[str, np.ndarray] = {}
    for name, (dtype, shape) in header.items():
        if dtype not in DTYPES or min(shape, default=0) < 0:
            return None
        count = math.prod(shape)
        size = count * np.dtype(dtype).itemsize
        if at + size > len(body):
            return None
        arrays[name] = np.frombuffer(body, dtype, count, at).reshape(shape)
        at += size
    return arrays if at == len(body) else None


def _content(path: Path, most_bytes: int) -> bytes | None:
    """A regular file's bytes, if they are not too many."""
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    handle = os.open(path, flags | getattr(os, "O_BINARY", 0))
    with open(handle, "rb") as file:
        there = os.fstat(handle)
        if not stat.S_ISREG(there.st_mode) or there.st_size > most_bytes:
            return None
        return file.read(there.st_size)
