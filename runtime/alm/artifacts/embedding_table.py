"""The embedding table on disk: the rows that are asked for are read, and nothing else."""

from __future__ import annotations

import contextlib
import os
import weakref
from collections.abc import Sequence
from math import prod
from pathlib import Path
from threading import Lock
from typing import IO, Any

import numpy as np

from alm.artifacts import verify
from alm.errors import BadArtifacts, BadPrompt
from alm.host.archive import Section
from alm.parsing import File, printable


class Table:
    """Rows of the embedding table.

    They are read and not mapped: the system maps files in pieces of up to 2 MiB, and a prompt of
    111 tokens made 111 MB of a table of 525 resident.
    """

    def __init__(self, table: Path | IO[bytes], scales: Path | IO[bytes] | None = None) -> None:
        """Open the table, or take over files that are open: those are what is read, and closed.

        Args:
            table: floats [vocab, hidden]; int8 where there are scales.
            scales: float32 [vocab], what each row is multiplied by.

        Raises:
            BadArtifacts: a file is no array, or one of another type, shape or length.
        """
        self._file, self._lock = _open(table), Lock()
        weakref.finalize(self, self._file.close)
        shape, self._dtype, self._start = _header(self._file)
        raw = getattr(self._file, "raw", None)
        self._base = raw.start if isinstance(raw, Section) else 0  # where the file itself begins
        kind, wanted = ("i", "int8") if scales else ("f", "floats")
        right = self._dtype.kind == kind and self._dtype.itemsize in ((1,) if scales else (2, 4, 8))
        if len(shape) != 2 or not right:
            raise BadArtifacts(
                f"{self._file.name} is no table of {wanted} [vocab, hidden] "
                f"but {self._dtype} {list(shape)}"
            )
        self.shape = (shape[0], shape[1])
        self._scales = None if scales is None else _whole(scales, self.shape[:1])

    def __call__(self, token_ids: np.ndarray) -> np.ndarray:
        """Embeddings float32 [..., hidden] of ids [...].

        Raises:
            BadPrompt: a token that the table has no row for, such as one added for padding.
            BadArtifacts: the file has become shorter since it was opened.
        """
        vocab, hidden = self.shape
        strange = token_ids[(token_ids < 0) | (token_ids >= vocab)]
        if strange.size:
            raise BadPrompt(
                f"token {int(strange[0])} is none of the {vocab} that the model knows; "
                "leave special tokens out of the prompt"
            )
        wanted, places = np.unique(token_ids, return_inverse=True)
        stored = np.empty((len(wanted), hidden), self._dtype)
        for row, token in zip(stored, wanted.tolist(), strict=True):
            self._read(token, row)
        rows = stored.astype(np.float32)
        if self._scales is not None:
            rows *= self._scales[wanted, None]
        return rows[places.reshape(token_ids.shape)]

    def _read(self, token: int, row: np.ndarray) -> None:
        at = self._start + token * row.nbytes
        if row.nbytes != self._read_at(at, row.data.cast("B")):
            raise BadArtifacts(f"{self._file.name} ends before the row of token {token}")

    def _read_at(self, at: int, into: memoryview) -> int:
        """Fill a buffer from a place in the file; the number of bytes read."""
        if hasattr(os, "preadv"):  # moves no position that several threads would share
            return os.preadv(self._file.fileno(), [into], self._base + at)
        with self._lock:
            self._file.seek(at)
            return self._file.readinto(into)  # pyright: ignore


def open_table(folder: Path, files: Sequence[File]) -> Table:
    """The table of a part's verified files, of which a second one holds the scales of int8.

    Raises:
        MissingFile, BadArtifacts: a file that differs from the manifest's entry, or no table.
    """
    with contextlib.ExitStack() as stack:
        table = Table(*(stack.enter_context(verify.opened(folder, file)) for file in files[:2]))
        stack.pop_all()  # the table closes them
        return table


def _open(file: Path | IO[bytes]) -> IO[bytes]:
    if not isinstance(file, Path):
        return file
    try:
        return file.open("rb")
    except OSError as error:
        raise BadArtifacts(f"{file} is no readable table: {error}") from error


def _header(file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any], int]:
    """Shape, type and start of the values of an .npy file that is long enough for them."""
    read = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    try:
        version = np.lib.format.read_magic(file)
        if version not in read:
            raise ValueError(f"it is .npy of version {version}, wanted 1.0 or 2.0")
        shape, fortran, dtype = read[version](file)
        start = file.tell()
        there = file.seek(0, os.SEEK_END)
        file.seek(start)
    except Exception as error:  # numpy parses a Python expression: errors of many kinds
        raise BadArtifacts(f"{file.name} is no readable table: {printable(error, 200)}") from error
    if fortran and len(shape) > 1 or dtype.hasobject:
        raise BadArtifacts(f"{file.name} is no table: its rows do not lie one after the other")
    if min(shape, default=1) < 0 or start + prod(shape) * dtype.itemsize > there:
        raise BadArtifacts(
            f"{file.name} is no readable table: {there} bytes hold no {dtype} {list(shape)}"
        )
    return shape, dtype, start


def _whole(file: Path | IO[bytes], shape: tuple[int, ...]) -> np.ndarray:
    """The scales, of which there are as many as rows."""
    with _open(file) as opened:
        there, dtype, _ = _header(opened)
        if dtype != np.float32 or there != shape:
            raise BadArtifacts(
                f"{opened.name} holds no scales, float32 {list(shape)}, but {dtype} {list(there)}"
            )
        return np.frombuffer(opened.read(4 * prod(shape)), np.float32)
