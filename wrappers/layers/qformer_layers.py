"""Layers of a Q-Former: a BERT with cross-attention (Li et al. 2023), one window at a time.

Queries are few and frames are many (88 and 1500 of a SALMONN), so no frame becomes a key or value
where that costs less: the key's matrix is applied to the queries, and the value's to what they have
read.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional as F

from wrappers.layers.attention import attend, split

Cut = Callable[[Tensor], Tensor]  # frames -> windows of them


@dataclass(frozen=True)
class BlockShape:
    """Sizes of a layer, and what checkpoints do not have alike."""

    hidden: int
    source: int  # width of the frames
    heads: int
    intermediate: int
    reads_frames: bool  # whether queries read the frames themselves
    eps: float = 1e-12
    activation: Cut = F.gelu
    inner: str = "self"  # what the checkpoint calls an attention's query, key and value


class Projections(nn.Module):
    """BERT's query, key and value."""

    def __init__(self, width: int, source: int) -> None:
        super().__init__()
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(source, width)
        self.value = nn.Linear(source, width)


class Output(nn.Module):
    """BERT's output: dense, add, norm."""

    def __init__(self, source: int, shape: BlockShape) -> None:
        super().__init__()
        self.dense = nn.Linear(source, shape.hidden)
        self.LayerNorm = nn.LayerNorm(shape.hidden, eps=shape.eps)

    def forward(self, x: Tensor, residual: Tensor) -> Tensor:
        return self.LayerNorm(self.dense(x) + residual)


class Attention(nn.Module):
    """The two halves of a BERT attention, under the checkpoint's names."""

    def __init__(self, shape: BlockShape, source: int) -> None:
        super().__init__()
        self.heads, self.inner = shape.heads, shape.inner
        self.add_module(shape.inner, Projections(shape.hidden, source))
        self.output = Output(shape.hidden, shape)

    @property
    def projections(self) -> Projections:
        """Query, key and value."""
        return getattr(self, self.inner)


class SelfAttention(Attention):
    """The queries of a window among themselves."""

    def forward(self, x: Tensor) -> Tensor:
        own = self.projections
        if x.shape[1] == 1:  # softmax over one key is 1: query and key do not matter
            return self.output(own.value(x), x)
        return self.output(attend(own.query(x), own.key(x), own.value(x), self.heads), x)


class CrossAttention(Attention):
    """The queries of a window over its frames.

    Both forms are the same sums in another order. With q' = q_h W_k,h for each head h

        q_h (W_k,h x + b_k,h) = q' x + a number that is the same for all keys of a query

    which softmax does not see, and as its weights p sum to 1

        sum_j p_j (W_v,h x_j + b_v,h) = W_v,h (sum_j p_j x_j) + b_v,h.
    """

    def __init__(self, shape: BlockShape) -> None:
        super().__init__(shape, shape.source)
        self.reads_frames = shape.reads_frames

    def forward(self, x: Tensor, frames: Tensor, windows: Tensor, cut: Cut) -> Tensor:
        """x [n or 1, queries, width], windows [n, kernel, source] are the frames, cut."""
        own = self.projections
        if self.reads_frames:
            return self.output(self.read(own.query(x), windows), x)
        # Keys and values are made per frame and cut afterwards: windows may overlap.
        key, value = cut(own.key(frames)), cut(own.value(frames))
        return self.output(attend(own.query(x), key, value, self.heads), x)

    def read(self, q: Tensor, windows: Tensor) -> Tensor:
        """[n or 1, queries, width], [n, kernel, source] -> [n, queries, width]."""
        own = self.projections
        key, value = (self.by_head(layer.weight) for layer in (own.key, own.value))
        q = split(q, self.heads) * (q.shape[2] // self.heads) ** -0.5
        turned = self.per_head(q.permute(2, 0, 1, 3), key)  # [heads, n or 1, queries, source]
        turned = turned.permute(1, 0, 2, 3).flatten(1, 2)
        weights = (turned @ windows.mT).softmax(-1)  # [n, heads * queries, kernel]
        context = (weights @ windows).unflatten(1, (self.heads, -1)).transpose(0, 1)
        context = self.per_head(context, value.mT)  # [heads, n, queries, dim]
        return context.permute(1, 2, 0, 3).flatten(2) + own.value.bias

    def by_head(self, weight: Tensor) -> Tensor:
        """[width, source] -> [heads, dim, source]."""
        return weight.unflatten(0, (self.heads, -1))

    @staticmethod
    def per_head(x: Tensor, matrices: Tensor) -> Tensor:
        """[heads, n, queries, a] @ [heads, a, b], one product for each head."""
        return (x.flatten(1, 2) @ matrices).unflatten(1, (-1, x.shape[2]))


class Block(nn.Module):
    """One layer; `crosses`: whether it has a cross-attention."""

    def __init__(self, shape: BlockShape, *, crosses: bool = True) -> None:
        super().__init__()
        self.activation = shape.activation
        self.attention = SelfAttention(shape, shape.hidden)
        self.crossattention = CrossAttention(shape) if crosses else None
        self.intermediate_query = nn.ModuleDict(
            {"dense": nn.Linear(shape.hidden, shape.intermediate)}
        )
        self.output_query = Output(shape.intermediate, shape)

    def forward(self, x: Tensor, frames: Tensor, windows: Tensor, cut: Cut) -> Tensor:
        x = self.attention(x)
        if self.crossattention is not None:
            x = self.crossattention(x, frames, windows, cut)
        return self.output_query(self.activation(self.intermediate_query["dense"](x)), x)


def reads_frames(queries: int, kernel: int, frames: int, hidden: int, heads: int) -> bool:
    """Whether queries that read the frames themselves cost less than keys and values of all.

    In products per channel of a frame, half of them for either: with `hidden` numbers of each of
    the `queries` its matrix is applied, with one of each head every frame of a window, `kernel` of
    them, is read. There are so many `frames`.
    """
    return queries * (hidden + heads * kernel) < frames * hidden
