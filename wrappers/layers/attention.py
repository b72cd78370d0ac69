"""How an encoder's attention is written into a graph: one spelling for each dialect.

- `ort`: MultiHeadAttention of com.microsoft, which never holds all scores where there is no bias.
- `standard`: Attention-23, for ONNX Runtime >= 1.24 and TensorRT >= 10.14.
- any other: opset 20 and written out, for TensorRT 10.3 and whatever else reads ONNX.

Outside of an export all of them are the last.
"""

from __future__ import annotations

import torch
from torch import Tensor

# Far below any logit: its exponential is exactly zero. float16 can hold it, minus infinity times
# zero it could not.
NEVER = -3e4

HEAD_MULTIPLE = 8  # TensorRT builds no float16 Attention of other heads; the rest is zeros

OPSETS = {"ort": 20, "standard": 24}


def opset(dialect: str) -> int:
    """The opset that a dialect is written in."""
    return OPSETS.get(dialect, 20)


def padding(real: Tensor, dialect: str) -> Tensor:
    """From 1 or 0 [batch, keys], what `attend` takes to leave keys out; made once for all layers.

    A row without any real key gives some average, never NaN.
    """
    if dialect == "ort" and torch.compiler.is_exporting():
        return real.to(torch.int32)
    return ((1.0 - real) * NEVER)[:, None, None]


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    heads: int,
    dialect: str = "decomposed",
    bias: Tensor | None = None,
    padded: Tensor | None = None,
) -> Tensor:
    """softmax(q k' / sqrt(dim) + bias) v for each head, over the keys that are not padding.

    q [batch, queries, width], k and v [batch, keys, width], padded as `padding` gives it,
    bias [batch or 1, heads, queries, keys] -> [batch, queries, width].
    """
    if torch.compiler.is_exporting():
        if dialect == "ort":
            return _fused(q, k, v, heads, bias, padded)
        if dialect == "standard":
            return _joined(_attention(q, k, v, heads, bias, padded))
    q, k, v = (split(x, heads) for x in (q * _scale(q, heads), k, v))
    scores = q.transpose(1, 2) @ k.permute(0, 2, 3, 1)
    scores = scores if padded is None else scores + padded
    scores = scores if bias is None else scores + bias
    return _joined(scores.softmax(-1) @ v.transpose(1, 2))


def split(x: Tensor, heads: int) -> Tensor:
    """[batch, n, width] -> [batch, n, heads, width / heads]."""
    return _reshaped(x, (*x.shape[:2], heads, x.shape[2] // heads))


def _joined(x: Tensor) -> Tensor:
    """[batch, heads, n, dim] -> [batch, n, heads * dim]."""
    batch, heads, n, dim = x.shape
    return _reshaped(x.transpose(1, 2), (batch, n, heads * dim))


def _reshaped(x: Tensor, shape: tuple[int, ...]) -> Tensor:
    # One size that is unknown to the trace is written -1: two and more cost Shape nodes.
    unknown = [i for i, size in enumerate(shape) if isinstance(size, torch.SymInt)]
    if len(unknown) == 1:
        shape = tuple(-1 if i in unknown else size for i, size in enumerate(shape))
    return x.reshape(shape)


def _scale(q: Tensor, heads: int) -> float:
    return (q.shape[2] // heads) ** -0.5


def _fused(
    q: Tensor, k: Tensor, v: Tensor, heads: int, bias: Tensor | None, padded: Tensor | None
) -> Tensor:
    """com.microsoft MultiHeadAttention, its key_padding_mask int32 [batch, keys]."""
    return torch.onnx.ops.symbolic(
        "com.microsoft::MultiHeadAttention",
        (q, k, v, None, padded, bias),
        {"num_heads": heads, "scale": _scale(q, heads), "mask_filter_value": NEVER},
        dtype=q.dtype,
        shape=q.shape,
        version=1,
    )


def _attention(
    q: Tensor, k: Tensor, v: Tensor, heads: int, bias: Tensor | None, padded: Tensor | None
) -> Tensor:
    """Attention-23 -> [batch, heads, queries, dim].

    With four dimensions and the scale folded into q, as TensorRT wants it, and without
    softmax_precision, which it refuses.
    """
    mask = bias
    if padded is not None:  # one query's mask is not spread over the others by every engine
        mask = padded.expand(-1, 1, q.shape[1], -1) if bias is None else bias + padded
    dim = q.shape[2] // heads
    q, k, v = (split(x, heads).transpose(1, 2) for x in (q * _scale(q, heads), k, v))
    spare = -dim % HEAD_MULTIPLE
    if spare:
        q, k, v = (torch.nn.functional.pad(x, (0, spare)) for x in (q, k, v))
    y = torch.onnx.ops.attention(q, k, v, mask, scale=1.0)[0]
    return y[..., :dim] if spare else y
