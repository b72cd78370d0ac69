"""Attention of encoders and bridges, spelled out in operators of opset 20, which any backend has.

It is what the encoders of every dialect compute outside of an export.
"""

from __future__ import annotations

import torch
from torch import Tensor

# Far below any logit: its exponential is exactly zero. float16 can hold it, minus infinity times
# zero it could not.
NEVER = -3e4


def padding(real: Tensor) -> Tensor:
    """From 1 or 0 [batch, keys], what `attend` takes to leave keys out; made once for all layers.

    A row without any real key gives some average, never NaN.
    """
    return ((1.0 - real) * NEVER)[:, None, None]


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    heads: int,
    bias: Tensor | None = None,
    padded: Tensor | None = None,
) -> Tensor:
    """softmax(q k' / sqrt(dim) + bias) v for each head, over the keys that are not padding.

    q [batch, queries, width], k and v [batch, keys, width], padded as `padding` gives it,
    bias [batch or 1, heads, queries, keys] -> [batch, queries, width].
    """
    q, k, v = (split(x, heads) for x in (q * scale(q, heads), k, v))
    scores = q.transpose(1, 2) @ k.permute(0, 2, 3, 1)
    scores = scores if padded is None else scores + padded
    scores = scores if bias is None else scores + bias
    return joined(scores.softmax(-1) @ v.transpose(1, 2))


def split(x: Tensor, heads: int) -> Tensor:
    """[batch, n, width] -> [batch, n, heads, width / heads]."""
    return _reshaped(x, (*x.shape[:2], heads, x.shape[2] // heads))


def joined(x: Tensor) -> Tensor:
    """[batch, heads, n, dim] -> [batch, n, heads * dim]."""
    batch, heads, n, dim = x.shape
    return _reshaped(x.transpose(1, 2), (batch, n, heads * dim))


def scale(q: Tensor, heads: int) -> float:
    """1 / sqrt(dim) of queries [batch, n, heads * dim]."""
    return (q.shape[2] // heads) ** -0.5


def _reshaped(x: Tensor, shape: tuple[int, ...]) -> Tensor:
    # One size that is unknown to the trace is written -1: two and more cost Shape nodes.
    unknown = [i for i, size in enumerate(shape) if isinstance(size, torch.SymInt)]
    if len(unknown) == 1:
        shape = tuple(-1 if i in unknown else size for i, size in enumerate(shape))
    return x.reshape(shape)
