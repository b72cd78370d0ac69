"""The embedding table on disk: the rows that are asked for are read, and nothing else."""

from __future__ import annotations

import os
import weakref
from pathlib import Path
from typing import IO

import numpy as np

from alm.errors import BadArtifacts, BadPrompt


class Table:
    """Rows of the embedding table.

    They are read and not mapped: the system maps files in pieces of up to 2 MiB, and a prompt of
    111 tokens made 111 MB of a table of 525 resident.
    """

    def __init__(self, path: Path, scales: Path | None = None) -> None:
        """Open the table.

        Args:
            path: floats [vocab, hidden]; int8 where there are scales.
            scales: float32 [vocab], what each row is multiplied by.

        Raises:
            BadArtifacts: a file is no array, or one of another type or shape.
        """
        head = _mapped(path)
        kinds, wanted = ("i", "int8") if scales else ("f", "floats")
        right = head.dtype.kind in kinds and (not scales or head.dtype.itemsize == 1)
        if head.ndim != 2 or not right or not head.flags.c_contiguous:
            raise BadArtifacts(
                f"{path} is no table of {wanted} [vocab, hidden] "
                f"but {head.dtype} {list(head.shape)}"
            )
        self.shape = (head.shape[0], head.shape[1])
        self._dtype, self._start = head.dtype, head.offset
        self._file = open(path, "rb", buffering=0)  # noqa: SIM115 -- read from as long as we live
        weakref.finalize(self, self._file.close)
        self._scales = None if scales is None else np.array(_mapped(scales))
        if self._scales is None:
            return
        if self._scales.dtype != np.float32 or self._scales.shape != self.shape[:1]:
            raise BadArtifacts(
                f"{scales} holds no scales, float32 [{self.shape[0]}], "
                f"but {self._scales.dtype} {list(self._scales.shape)}"
            )

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
        found = np.empty((len(wanted), hidden), self._dtype)
        for row, token in zip(found, wanted.tolist(), strict=True):
            self._read(token, row)
        rows = found.astype(np.float32)
        if self._scales is not None:
            rows *= self._scales[wanted, None]
        return rows[places.reshape(token_ids.shape)]

    def _read(self, token: int, row: np.ndarray) -> None:
        at = self._start + token * row.nbytes
        if row.nbytes != _read_at(self._file, at, row):
            raise BadArtifacts(f"{self._file.name} ends before the row of token {token}")


def _read_at(file: IO[bytes], at: int, into: np.ndarray) -> int:
    """Fill an array from a place in a file; the number of bytes read."""
    buffer = into.data.cast("B")
    if hasattr(os, "preadv"):  # moves no position that several threads would share
        return os.preadv(file.fileno(), [buffer], at)
    with open(file.name, "rb", buffering=0) as own:
        own.seek(at)
        return own.readinto(buffer) or 0


def _mapped(path: Path) -> np.memmap:
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise BadArtifacts(f"{path} is no readable table: {error}") from error
    if not isinstance(array, np.memmap):
        raise BadArtifacts(f"{path} is no table but an archive")
    return array
