"""Opset <= 20 and a cache that grows: for TensorRT 10.3 and any runtime without newer operators.

The cache holds, beside keys and values, the position of every key, so that rows of different
length may be padded anywhere: a key counts when its position is not after the query's.
"""

from __future__ import annotations

import torch
from torch import Tensor

from wrappers.layers import attention

OPSET = ENCODER_OPSET = 20
CACHE_AXIS = "past"  # the cache that goes in holds this many keys, the one that comes out `total`
HEAD_MULTIPLE = 1  # of the numbers in a head
CHUNK_ROWS = 0  # at once, when several tokens meet a past; 0: any number
INTEGER_CACHE = False
TRACKS_POSITIONS = True

grouped_query = experts = None
encoder_padding, encoder_attend = attention.padding, attention.attend

NOWHERE = 2**30  # the position of padding: after every query, so nobody attends to it


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """x / rms(x) * weight over the last axis (Zhang & Sennrich 2019)."""
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + eps) * weight


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary embedding, halves paired, of the first numbers of each head; the rest stays.

    x [batch, heads, seq, dim], cos and sin [batch, seq, turned / 2].
    """
    half, cos, sin = cos.shape[-1], cos[:, None], sin[:, None]
    a, b, rest = x.split([half, half, x.shape[-1] - 2 * half], -1)
    turned = (a * cos - b * sin, b * cos + a * sin)
    return torch.cat((*turned, rest) if rest.shape[-1] else turned, -1)


def extend(past: Tensor, new: Tensor, past_lengths: Tensor) -> Tensor:
    """The cache [batch, heads, past, dim] with the new keys or values behind it."""
    return torch.cat((past, new), 2)


def extend_positions(past: Tensor, positions: Tensor, real: Tensor) -> Tensor:
    """Where every key of the grown cache stands: [batch, past + seq]."""
    return torch.cat((past, torch.where(real, positions, NOWHERE)), 1)


def attend(
    q: Tensor, k: Tensor, v: Tensor, allowed: Tensor, scale: float, softcap: float
) -> Tensor:
    """softmax(q k' * scale) v under a mask, softmax in float32.

    q [batch, heads, seq, dim], k and v [batch, kv_heads, keys, dim], allowed [batch, 1, seq, keys].
    The query heads that share a key head are folded into the sequence, so no key is repeated.
    """
    batch, heads, seq, dim = q.shape
    kv_heads = k.shape[1]
    grouped = (q * scale).reshape(batch, kv_heads, heads // kv_heads * seq, dim)
    scores = (grouped @ k.mT).float().reshape(batch, heads, seq, -1)
    if softcap:
        scores = softcap * torch.tanh(scores / softcap)
    # A finite minimum: a query without any key (padding) gives some average, never NaN.
    scores = torch.where(allowed, scores, -1e30)
    weights = scores.softmax(-1).to(v.dtype).reshape(batch, kv_heads, heads // kv_heads * seq, -1)
    return (weights @ v).reshape(batch, heads, seq, dim)
