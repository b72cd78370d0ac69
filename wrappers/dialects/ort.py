"""ONNX Runtime's own operators: GroupQueryAttention on a cache of fixed capacity.

A row's new keys are written behind its past, so slot and position are one, as in `standard`. Where
the cache is bound to the same buffer on both sides nothing is copied, and time follows the length
of the row, not the capacity. Heads are turned outside of the operator: its own rotary embedding
wants a table over the whole context (67 MB for 131072 positions), heads of a multiple of 16, and
knows no rope whose frequencies change with the length. It would save 1 % of a step.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from wrappers.dialects import decomposed, standard
from wrappers.layers import attention

if TYPE_CHECKING:
    from wrappers.layers.decoder_layers import Attention
    from wrappers.layers.experts import Experts

OPSET, ENCODER_OPSET = 21, 20
CACHE_AXIS = "capacity"
HEAD_MULTIPLE = 8  # others are refused; heads are filled up with zeros, which change no product
INTEGER_CACHE = True
TRACKS_POSITIONS = False
CHUNK_ROWS = 1  # the operator refuses several rows at once when several tokens meet a past

rotate = decomposed.rotate
extend = standard.extend
extend_positions = decomposed.extend_positions
attend = decomposed.attend


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """x / rms(x) * weight over the last axis (Zhang & Sennrich 2019).

    In exactly these operators ONNX Runtime makes one SimplifiedLayerNormalization of it on loading,
    from 1.20 to 1.31 at least. That node itself is in no ONNX operator set: onnx.checker refuses
    it. The sum before it stays a node: joined with it, it takes half as long again on a CPU.
    """
    return x / torch.sqrt(x.pow(2).mean(-1, keepdim=True) + eps) * weight


def grouped_query(
    layer: Attention,
    x: Tensor,
    rope: tuple[Tensor, ...],
    past_lengths: Tensor,
    past_key: Tensor,
    past_value: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Attention of x [batch, seq, hidden] before the output projection; for tracing alone.

    Rows are padded on the right and the operator is told that padding is real: it comes after every
    real token, which therefore never sees it, and its slots are overwritten by what comes next.

    Returns:
        y [batch, seq, heads * head_dim], and the caches.
    """
    spec, seq = layer.spec, x.shape[1]
    q, k, v = layer.packed(x).split(layer.sizes, -1)
    q, k = layer.before_rope(q, k)
    q, k = _turned(q, spec.heads, rope[-2:]), _turned(k, spec.kv_heads, rope[:2])
    total = past_lengths + seq
    attributes: dict[str, Any] = {
        "num_heads": spec.heads,
        "kv_num_heads": spec.kv_heads,
        "scale": spec.scale or spec.head_dim**-0.5,
        "local_window_size": layer.window or -1,
        "do_rotary": 0,
    }
    if spec.softcap:  # unknown to ONNX Runtime before 1.20
        attributes["softcap"] = spec.softcap
    spare = past_key.shape[-1] - spec.head_dim
    if spare:
        q, k, v = (_widened(tensor, spec.head_dim, spare) for tensor in (q, k, v))
    inputs: list[Any] = [tensor.to(layer.compute_dtype) for tensor in (q, k, v)]
    inputs += [past_key, past_value, (total - 1).int(), total.max().int()]
    if layer.cache_dtype == torch.int8:
        inputs += [None] * 5 + [layer.scales["key"], layer.scales["value"]]
        attributes |= {"kv_cache_bit_width": 8}
        attributes |= {"k_quant_type": "PER_CHANNEL", "v_quant_type": "PER_CHANNEL"}
    y, key, value = torch.onnx.ops.symbolic_multi_out(
        "com.microsoft::GroupQueryAttention",
        inputs,
        attributes,
        dtypes=(layer.compute_dtype, past_key.dtype, past_value.dtype),
        shapes=(q.shape, past_key.shape, past_value.shape),
        version=1,
    )
    y = y.float()
    if spare:
        y = y.unflatten(-1, (spec.heads, -1))[..., : spec.head_dim].flatten(2)
    return y, key, value


def experts(layer: Experts, x: Tensor, scores: Tensor) -> Tensor:
    """com.microsoft MoE, which reads the experts alone that were picked; for tracing alone.

    x [batch, seq, hidden], the router's scores [batch, seq, experts]. Of the operator's forms the
    CPU has one: gates and ups in turns, row by row. Its softmax is over all experts where the
    picked ones are not normed, and float32.
    """
    mixture = layer.mixture
    halves = layer.gate_up_proj.unflatten(1, (2, -1))
    return torch.onnx.ops.symbolic(
        "com.microsoft::MoE",
        (x, scores.flatten(0, 1), halves.transpose(1, 2).flatten(1, 2), None, layer.down_proj),
        {
            "k": mixture.active,
            "normalize_routing_weights": int(mixture.normed),
            "activation_type": "swiglu",
            "swiglu_fusion": 1,
            "activation_alpha": 1.0,  # silu(gate) * up, as alpha 1 and beta 0 make it
            "activation_beta": 0.0,
        },
        dtype=x.dtype,
        shape=x.shape,
        version=1,
    )


def encoder_padding(real: Tensor) -> Tensor:
    """What `encoder_attend` takes to leave keys out: when exported, int32 [batch, keys]."""
    if not torch.compiler.is_exporting():
        return attention.padding(real)
    return real.to(torch.int32)


def encoder_attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    heads: int,
    bias: Tensor | None = None,
    padded: Tensor | None = None,
) -> Tensor:
    """com.microsoft MultiHeadAttention, which never holds all scores where there is no bias.

    Shapes are those of `attention.attend`, padded as `encoder_padding` gives it.
    """
    if not torch.compiler.is_exporting():
        return attention.attend(q, k, v, heads, bias, padded)
    attributes = {"scale": attention.scale(q, heads), "mask_filter_value": attention.NEVER}
    return torch.onnx.ops.symbolic(
        "com.microsoft::MultiHeadAttention",
        (q, k, v, None, padded, bias),
        {"num_heads": heads, **attributes},
        dtype=q.dtype,
        shape=q.shape,
        version=1,
    )


def _widened(x: Tensor, head_dim: int, spare: int) -> Tensor:
    """Zeros behind every head of x [batch, seq, heads * head_dim]."""
    return torch.nn.functional.pad(x.unflatten(-1, (-1, head_dim)), (0, spare)).flatten(2)


def _turned(x: Tensor, heads: int, rope: tuple[Tensor, ...]) -> Tensor:
    """Rotary embedding of x [batch, seq, heads * dim].

    The operator looks cosines up in a table; the table holds those of the new positions alone, row
    after row, and is looked up in order.
    """
    cos, sin = (table.expand(x.shape[0], -1, -1) for table in rope)
    order = torch.arange(x.shape[0] * x.shape[1]).view(x.shape[:2])
    attributes: dict[str, Any] = {"num_heads": heads}
    turned = 2 * cos.shape[-1]
    if turned * heads != x.shape[2]:  # of each head the first numbers alone
        attributes["rotary_embedding_dim"] = turned
    return torch.onnx.ops.symbolic(
        "com.microsoft::RotaryEmbedding",
        (x, order, cos.flatten(0, 1), sin.flatten(0, 1)),
        attributes,
        dtype=x.dtype,
        shape=x.shape,
        version=1,
    )
