"""The bridge of SALMONN: learned queries read every window of the encoders' features.

Both layer norms, the padding of the shorter encoder, the windows, the Q-Former (a BERT with
cross-attention in every layer, Li et al. 2023) and the projection into the LLM are one graph.

Queries are few and frames are many (88 and 1500 of a SALMONN), so no frame becomes a key or value:
the key's matrix is applied to the queries, and the value's to what they have read.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from alm.ports import Port, Span
from wrappers import Wrapper, randomised
from wrappers.layers.attention import attend, split


@dataclass(frozen=True)
class Shape:
    """Sizes of a window Q-Former; `audio_width` 0 means that there is no second encoder."""

    frames: int  # of the speech encoder
    speech_width: int
    audio_width: int
    hidden: int
    heads: int
    layers: int
    intermediate: int
    queries: int  # per window
    kernel: int  # frames in a window
    stride: int
    out: int  # the LLM's width

    @property
    def windows(self) -> int:
        """How many windows fit; trailing frames are dropped, as F.unfold does."""
        return (self.frames - self.kernel) // self.stride + 1

    @property
    def tokens(self) -> int:
        """Audio embeddings per clip."""
        return self.windows * self.queries

    @property
    def reads_frames(self) -> bool:
        """Whether queries that read the frames themselves cost less than keys and values of all.

        In products per channel of a frame, half of them for either: with `hidden` numbers of each
        query its matrix is applied, with one of each head every frame of a window is read.
        """
        return self.tokens * (self.hidden + self.heads * self.kernel) < self.frames * self.hidden


class Projections(nn.Module):
    """BERT's query, key and value."""

    def __init__(self, width: int, source: int) -> None:
        super().__init__()
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(source, width)
        self.value = nn.Linear(source, width)


class Output(nn.Module):
    """BERT's output: dense, add, norm."""

    def __init__(self, source: int, width: int) -> None:
        super().__init__()
        self.dense = nn.Linear(source, width)
        self.LayerNorm = nn.LayerNorm(width, eps=1e-12)

    def forward(self, x: Tensor, residual: Tensor) -> Tensor:
        return self.LayerNorm(self.dense(x) + residual)


class Attention(nn.Module):
    """The two halves of a BERT attention, under the checkpoint's names `self` and `output`."""

    def __init__(self, width: int, source: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.self = Projections(width, source)
        self.output = Output(width, width)


class SelfAttention(Attention):
    """The queries of a window among themselves."""

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[1] == 1:  # softmax over one key is 1: query and key do not matter
            return self.output(self.self.value(x), x)
        mixed = attend(self.self.query(x), self.self.key(x), self.self.value(x), self.heads)
        return self.output(mixed, x)


class CrossAttention(Attention):
    """The queries of a window over its frames.

    Both forms are the same sums in another order. With q' = q_h W_k,h for each head h

        q_h (W_k,h x + b_k,h) = q' x + a number that is the same for all keys of a query

    which softmax does not see, and as its weights p sum to 1

        sum_j p_j (W_v,h x_j + b_v,h) = W_v,h (sum_j p_j x_j) + b_v,h.
    """

    def __init__(self, width: int, source: int, heads: int, reads_frames: bool) -> None:
        super().__init__(width, source, heads)
        self.reads_frames = reads_frames

    def forward(self, x: Tensor, frames: Tensor, windows: Tensor, cut: Windows) -> Tensor:
        """x [n or 1, queries, width], windows [n, kernel, source] are the frames, cut."""
        if self.reads_frames:
            return self.output(self.read(self.self.query(x), windows), x)
        # Keys and values are made per frame and cut afterwards: windows may overlap.
        key, value = cut(self.self.key(frames)), cut(self.self.value(frames))
        return self.output(attend(self.self.query(x), key, value, self.heads), x)

    def read(self, q: Tensor, windows: Tensor) -> Tensor:
        """[n or 1, queries, width], [n, kernel, source] -> [n, queries, width]."""
        key, value = (self.by_head(layer.weight) for layer in (self.self.key, self.self.value))
        q = split(q, self.heads) * (q.shape[2] // self.heads) ** -0.5
        turned = self.per_head(q.permute(2, 0, 1, 3), key)  # [heads, n or 1, queries, source]
        turned = turned.permute(1, 0, 2, 3).flatten(1, 2)
        weights = (turned @ windows.mT).softmax(-1)  # [n, heads * queries, kernel]
        context = (weights @ windows).unflatten(1, (self.heads, -1)).transpose(0, 1)
        context = self.per_head(context, value.mT)  # [heads, n, queries, dim]
        return context.permute(1, 2, 0, 3).flatten(2) + self.self.value.bias

    def by_head(self, weight: Tensor) -> Tensor:
        """[width, source] -> [heads, dim, source]."""
        return weight.unflatten(0, (self.heads, -1))

    @staticmethod
    def per_head(x: Tensor, matrices: Tensor) -> Tensor:
        """[heads, n, queries, a] @ [heads, a, b], one product for each head."""
        return (x.flatten(1, 2) @ matrices).unflatten(1, (-1, x.shape[2]))


class Windows(nn.Module):
    """Cut [batch, frames, width] into [batch * windows, kernel, width]."""

    index: Tensor

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        starts = torch.arange(shape.windows, device="cpu") * shape.stride
        index = (starts[:, None] + torch.arange(shape.kernel, device="cpu")).flatten()
        self.register_buffer("index", index, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        kernel, width = self.shape.kernel, x.shape[-1]
        if self.shape.stride == kernel:
            return x[:, : self.shape.windows * kernel].reshape(-1, kernel, width)
        return x.index_select(1, self.index).reshape(-1, kernel, width)


class Block(nn.Module):
    """One Q-Former layer."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        source = shape.speech_width + shape.audio_width
        self.attention = SelfAttention(shape.hidden, shape.hidden, shape.heads)
        self.crossattention = CrossAttention(shape.hidden, source, shape.heads, shape.reads_frames)
        self.intermediate_query = nn.ModuleDict(
            {"dense": nn.Linear(shape.hidden, shape.intermediate)}
        )
        self.output_query = Output(shape.intermediate, shape.hidden)

    def forward(self, x: Tensor, frames: Tensor, windows: Tensor, cut: Windows) -> Tensor:
        x = self.crossattention(self.attention(x), frames, windows, cut)
        wide = nn.functional.gelu(self.intermediate_query["dense"](x))
        return self.output_query(wide, x)


class QFormer(Wrapper):
    """speech [batch, frames, width], audio [batch, tokens, width] -> audio_embeds."""

    role = "bridge"

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.ln_speech = nn.LayerNorm(shape.speech_width)
        self.speech_query_tokens = nn.Parameter(torch.zeros(1, shape.queries, shape.hidden))
        embeddings = nn.ModuleDict({"LayerNorm": nn.LayerNorm(shape.hidden, eps=1e-12)})
        blocks = nn.ModuleList(Block(shape) for _ in range(shape.layers))
        encoder = nn.ModuleDict({"layer": blocks})
        bert = nn.ModuleDict({"embeddings": embeddings, "encoder": encoder})
        self.speech_Qformer = nn.ModuleDict({"bert": bert})
        self.speech_llama_proj = nn.Linear(shape.hidden, shape.out)
        self.cut = Windows(shape)
        self.inputs = {"speech": Port("float32", ("batch", shape.frames, shape.speech_width))}
        self.spans = {}
        if shape.audio_width:
            self.ln_audio = nn.LayerNorm(shape.audio_width)
            self.inputs["audio"] = Port("float32", ("batch", "tokens", shape.audio_width))
            self.inputs["audio_lengths"] = Port("int64", ("batch",), counts="tokens")
            self.spans["tokens"] = Span(1, shape.frames // 3, shape.frames)
        self.outputs = {"audio_embeds": Port("float32", ("batch", shape.tokens, shape.out))}

    def forward(
        self, speech: Tensor, audio: Tensor | None = None, audio_lengths: Tensor | None = None
    ) -> Tensor:
        frames = self.ln_speech(speech)
        if audio is not None and audio_lengths is not None:
            frames = torch.cat((frames, self._padded(audio, audio_lengths)), -1)
        bert = self.speech_Qformer["bert"]
        x = bert["embeddings"]["LayerNorm"](self.speech_query_tokens)  # pyright: ignore
        windows = self.cut(frames)
        for block in bert["encoder"]["layer"]:  # pyright: ignore
            x = block(x, frames, windows, self.cut)
        embeds = self.speech_llama_proj(x)  # [batch * windows, queries, out]
        return embeds.reshape(-1, self.shape.tokens, self.shape.out)

    def _padded(self, audio: Tensor, lengths: Tensor) -> Tensor:
        """Normed, zero past each row's length (the norm's bias is not), as long as the speech."""
        real = torch.arange(audio.shape[1]) < lengths[:, None]
        normed = self.ln_audio(audio) * real[..., None]
        longer = nn.functional.pad(normed, (0, 0, 0, self.shape.frames))
        return longer[:, : self.shape.frames]


def tiny() -> QFormer:
    """The smallest that computes something, with random weights, for tests."""
    widths: dict[str, Any] = dict(speech_width=32, audio_width=24, hidden=16, heads=4, out=20)
    rest: dict[str, Any] = dict(
        frames=50, layers=2, intermediate=32, queries=2, kernel=10, stride=7
    )
    return randomised(QFormer(Shape(**widths, **rest)))
