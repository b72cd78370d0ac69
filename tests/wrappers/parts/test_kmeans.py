"""Units against the arithmetic of SpeechGPT's ApplyKmeans, written out in NumPy."""

from __future__ import annotations

import numpy as np
import torch

from wrappers.bridges.kmeans import KMeans


def test_a_unit_is_the_nearest_centre_and_the_first_of_several() -> None:
    draw = np.random.default_rng(0)
    centres = draw.normal(size=(40, 9)).astype(np.float32)
    centres[31] = centres[7]
    part = KMeans(40, 9)
    part.centres.data = torch.from_numpy(centres)
    speech = draw.normal(size=(3, 50, 9)).astype(np.float32)
    speech[0, :5] = centres[31]
    lengths = np.array([50, 1, 33])
    units = part(torch.from_numpy(speech), torch.from_numpy(lengths)).numpy()
    wanted = ((speech[:, :, None] - centres) ** 2).sum(-1).argmin(-1)
    assert units.dtype == np.int64
    assert (units[0, :5] == 7).all()
    for row, want, n in zip(units, wanted, lengths, strict=True):
        assert (row[:n] == want[:n]).all()
        assert (row[n:] == -1).all()
