"""The bridge of SALMONN: learned queries read every window of the encoders' features.

Both layer norms, the padding of the shorter encoder, the windows, the Q-Former (a BERT with
cross-attention in every layer, Li et al. 2023) and the projection into the LLM are one graph.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from alm.ports import Port, Span
from wrappers import Wrapper, randomised
from wrappers.layers.qformer_layers import Block, BlockShape, reads_frames


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
        """Whether queries read the frames themselves."""
        return reads_frames(self.tokens, self.kernel, self.frames, self.hidden, self.heads)

    @property
    def block(self) -> BlockShape:
        """Sizes of a layer."""
        source = self.speech_width + self.audio_width
        return BlockShape(self.hidden, source, self.heads, self.intermediate, self.reads_frames)


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


class QFormer(Wrapper):
    """speech [batch, frames, width], audio [batch, tokens, width] -> audio_embeds."""

    role = "bridge"

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.ln_speech = nn.LayerNorm(shape.speech_width)
        self.speech_query_tokens = nn.Parameter(torch.zeros(1, shape.queries, shape.hidden))
        embeddings = nn.ModuleDict({"LayerNorm": nn.LayerNorm(shape.hidden, eps=1e-12)})
        blocks = nn.ModuleList(Block(shape.block) for _ in range(shape.layers))
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
