"""Opset 24 and a cache of fixed capacity: Attention, RotaryEmbedding, TensorScatter and kin.

The new keys of a row are written into the slots behind its past, so slot and position are one and
padding is overwritten by what comes next. ONNX Runtime writes in place when the cache is bound to
the same buffer on both sides; TensorRT >= 10.15 demands it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from wrappers.dialects import decomposed
from wrappers.layers import attention

OPSET = ENCODER_OPSET = 24
CACHE_AXIS = "capacity"
HEAD_MULTIPLE = 8  # TensorRT builds no float16 Attention of others; the rest is zeros
CHUNK_ROWS = 0  # at once, when several tokens meet a past; 0: any number
INTEGER_CACHE = False
TRACKS_POSITIONS = False

grouped_query = experts = None
extend_positions = decomposed.extend_positions
encoder_padding = decomposed.encoder_padding


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """RMSNormalization-23."""
    if not torch.compiler.is_exporting():
        return decomposed.rms_norm(x, weight, eps)
    return torch.onnx.ops.symbolic(
        "RMSNormalization",
        (x, weight),
        {"axis": -1, "epsilon": eps},
        dtype=x.dtype,
        shape=x.shape,
        version=OPSET,
    )


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """RotaryEmbedding-23, halves paired, of the first numbers of each head; the rest stays.

    x [batch, heads, seq, dim], cos and sin [batch, seq, turned / 2]. The rest is joined outside of
    the operator: that every backend follows its rotary_embedding_dim is not known.
    """
    if not torch.compiler.is_exporting():
        return decomposed.rotate(x, cos, sin)
    turned = 2 * cos.shape[-1]
    if turned == x.shape[-1]:
        return torch.onnx.ops.rotary_embedding(x, cos, sin)
    first, rest = x.split([turned, x.shape[-1] - turned], -1)
    return torch.cat((torch.onnx.ops.rotary_embedding(first, cos, sin), rest), -1)


def extend(past: Tensor, new: Tensor, past_lengths: Tensor) -> Tensor:
    """TensorScatter-24: the new keys or values in the slots behind each row's past.

    past [batch, heads, capacity, dim], new [batch, heads, seq, dim], past_lengths [batch].
    """
    if not torch.compiler.is_exporting():
        slots = past_lengths[:, None] + torch.arange(new.shape[2])
        index = slots[:, None, :, None].expand(new.shape)
        return past.scatter(2, index, new)
    return torch.onnx.ops.symbolic(
        "TensorScatter",
        (past, new, past_lengths),
        {"axis": -2, "mode": "linear"},
        dtype=past.dtype,
        shape=past.shape,
        version=OPSET,
    )


def attend(
    q: Tensor, k: Tensor, v: Tensor, allowed: Tensor, scale: float, softcap: float
) -> Tensor:
    """Attention-24 under an explicit mask; see `decomposed.attend` for the shapes.

    The mask is explicit because TensorRT's causal kind is aligned to the upper left, wrong for a
    cached step; the scale is folded into q because TensorRT wants it so; soft-capped attention is
    spelled out because TensorRT's parser refuses the attribute, as it does softmax_precision (its
    fused kernels add in float32 all the same). That several kernels may do it where no fused one
    can, TRT_decomposable, is added by `alm build`: ONNX Runtime refuses a graph that has it.
    """
    if softcap or not torch.compiler.is_exporting():
        return decomposed.attend(q, k, v, allowed, scale, softcap)
    return torch.onnx.ops.attention(q * scale, k, v, allowed, scale=1.0)[0]


def encoder_attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    heads: int,
    bias: Tensor | None = None,
    padded: Tensor | None = None,
) -> Tensor:
    """Attention-23, for ONNX Runtime >= 1.24 and TensorRT >= 10.14; shapes as `attention.attend`.

    With four dimensions and the scale folded into q, as TensorRT wants it, and without
    softmax_precision, which it refuses.
    """
    if not torch.compiler.is_exporting():
        return attention.attend(q, k, v, heads, bias, padded)
    mask = bias
    if padded is not None:  # one query's mask is not spread over the others by every backend
        mask = padded.expand(-1, 1, q.shape[1], -1) if bias is None else bias + padded
    dim = q.shape[2] // heads
    scaled = q * attention.scale(q, heads)
    q, k, v = (attention.split(x, heads).transpose(1, 2) for x in (scaled, k, v))
    spare = -dim % HEAD_MULTIPLE
    if spare:
        q, k, v = (torch.nn.functional.pad(x, (0, spare)) for x in (q, k, v))
    y = torch.onnx.ops.attention(q, k, v, mask, scale=1.0)[0]
    return attention.joined(y[..., :dim] if spare else y)
