"""The embedding table as a file whose rows the runtime reads as it needs them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

ROWS = 4096  # written at a time


def write(table: Tensor, path: Path, dtype: str = "") -> str:
    """Write the table [vocab, hidden] as .npy, which every numpy maps into memory.

    Without a dtype it is float32, or float16 where that loses nothing: checkpoints in float16 keep
    their size.

    Returns:
        The dtype written.
    """
    chosen = dtype or ("float16" if _exact_in_half(table) else "float32")
    file = np.lib.format.open_memmap(path, "w+", np.dtype(chosen), tuple(table.shape))
    for at in range(0, len(table), ROWS):
        file[at : at + ROWS] = table[at : at + ROWS].float().numpy().astype(chosen)
    file.flush()
    return chosen


def _exact_in_half(table: Tensor) -> bool:
    pieces = (table[at : at + ROWS].float() for at in range(0, len(table), ROWS))
    return all(torch.equal(piece.half().float(), piece) for piece in pieces)
