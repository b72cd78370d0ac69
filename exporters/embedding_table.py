"""The embedding table as a file whose rows the runtime reads as it needs them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from exporters.parity import Parity

ROWS = 4096  # written at a time


def write(table: Tensor, path: Path, dtype: str = "") -> tuple[str, list[Path], Parity]:
    """Write the table [vocab, hidden] as .npy, which every numpy maps into memory.

    Without a dtype it is float32, or float16 where that loses nothing: checkpoints in float16 keep
    their size. int8 has a scale for each row, in a file of its own.

    Returns:
        The dtype written, the files, the table first, and how far what they hold is from `table`.
    """
    chosen = dtype or ("float16" if _exact_in_half(table) else "float32")
    file = np.lib.format.open_memmap(path, "w+", np.dtype(chosen), tuple(table.shape))
    scales = np.ones(len(table), np.float32)
    measured = Parity(cases=1)
    for at in range(0, len(table), ROWS):
        rows = table[at : at + ROWS].float().numpy()
        if chosen == "int8":
            scales[at : at + ROWS] = largest = np.abs(rows).max(1, initial=0) / 127
            rows = np.rint(rows / np.where(largest > 0, largest, 1)[:, None])
        file[at : at + ROWS] = rows.astype(chosen)
        held = file[at : at + ROWS].astype(np.float32) * scales[at : at + ROWS, None]
        measured.take("rows", held, table[at : at + ROWS].float().numpy())
    file.flush()
    if chosen != "int8":
        return chosen, [path], measured
    beside = path.with_name(f"{path.stem}.scales.npy")
    np.save(beside, scales)
    return chosen, [path, beside], measured


def _exact_in_half(table: Tensor) -> bool:
    pieces = (table[at : at + ROWS].float() for at in range(0, len(table), ROWS))
    return all(torch.equal(piece.half().float(), piece) for piece in pieces)
