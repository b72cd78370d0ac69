"""Other speakers, rooms and microphones, cheaply: log-mel spectrograms changed at random."""

from __future__ import annotations

import torch
from torch import Tensor

QUIETEST, RANGE = -1.5, 2.0  # of Whisper's log-mel: digital silence, and how far below the peak


def disturbed(x: Tensor, speech: Tensor, draw: torch.Generator) -> Tensor:
    """Another speaker's formants, another microphone, some noise, and holes, in the log-mel domain.

    `speech` says which rows may lose their upper half, as over a telephone: noise must not.
    """
    rows, mels, frames = x.shape

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(*shape, generator=draw)

    bins = torch.arange(mels).float()
    place = (bins[None] * uniform(0.93, 1.09, rows, 1)).clamp(max=mels - 1)
    left = place.floor()
    warp = torch.zeros(rows, mels, mels)
    warp.scatter_(2, left.long()[..., None], (1 - (place - left))[..., None])
    right = (left.long() + 1).clamp(max=mels - 1)
    warp.scatter_add_(2, right[..., None], (place - left)[..., None])
    x = warp @ x
    loudest = x.amax(dim=(1, 2), keepdim=True)
    curve = torch.nn.functional.interpolate(
        0.07 * torch.randn(rows, 1, 6, generator=draw), mels, mode="linear", align_corners=True
    )
    x = x + curve.transpose(1, 2)
    cut = torch.where(
        speech & (torch.rand(rows, generator=draw) < 0.2),
        uniform(56, 66, rows),
        uniform(90, 91, rows),
    )
    x = torch.where(bins[None, :, None] > cut[:, None, None], loudest - RANGE, x)
    level = loudest - uniform(1.0, 2.6, rows, 1, 1)
    tilt = uniform(-0.35, 0.1, rows, 1, 1) * (bins / mels)[None, :, None]
    grain = 0.12 * torch.randn(rows, mels, frames, generator=draw)
    x = torch.logaddexp(x * 9.21, (level + tilt + grain) * 9.21) / 9.21  # 4 ln 10: powers add
    x = torch.maximum(x, loudest - RANGE) + uniform(-0.25, 0.15, rows, 1, 1)
    return _holes(x, draw).clamp(min=QUIETEST)


def _holes(x: Tensor, draw: torch.Generator) -> Tensor:
    """SpecAugment (Park et al. 2019): a band and a short moment are gone."""
    rows, mels, frames = x.shape
    gone = torch.zeros(rows, mels, frames, dtype=torch.bool)
    for axis, most, size in ((1, 8, mels), (2, 8, frames)):
        start = torch.randint(0, max(size - most, 1), (rows, 1), generator=draw)
        width = torch.randint(0, most, (rows, 1), generator=draw)
        span = torch.arange(size)[None]
        hit = (span >= start) & (span < start + width)
        gone |= hit[:, :, None] if axis == 1 else hit[:, None, :]
    return torch.where(gone, x.mean(dim=(1, 2), keepdim=True), x)
