"""The bridge of Granite Speech: a few learned queries read every window of the encoder's frames.

BLIP-2's Q-Former and the projection into the LLM. A clip is as many windows as it needs, the last
one filled up with zeros that are read as frames are.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from alm.ports import Port, Span
from wrappers import Wrapper, randomised
from wrappers.layers.audio_layers import activation
from wrappers.layers.qformer_layers import Block, BlockShape, reads_frames


@dataclass(frozen=True)
class Shape:
    """Sizes of a window Q-Former whose clips are of any length."""

    width: int  # of the encoder's frames
    hidden: int
    heads: int
    layers: int
    intermediate: int
    queries: int  # per window
    window: int  # frames
    out: int  # the LLM's width
    eps: float = 1e-12
    activation: str = "gelu"  # by its name in transformers
    every: int = 1  # how many layers share a cross-attention, which the first of them has

    @property
    def block(self) -> BlockShape:
        """Sizes of a layer."""
        return BlockShape(
            self.hidden,
            self.width,
            self.heads,
            self.intermediate,
            reads_frames(self.queries, self.window, self.window, self.hidden, self.heads),
            self.eps,
            activation(self.activation, "the Q-Former"),
            inner="attention",
        )


class WindowQFormer(Wrapper):
    """speech, pairs_lengths -> audio_embeds, audio_embeds_lengths.

    Weights have the names of transformers' GraniteSpeechEncoderProjector.

    Args:
        shape: the sizes.
        most: frames of a clip.

    Raises:
        BadCheckpoint: an unknown activation.
    """

    role = "bridge"

    def __init__(self, shape: Shape, most: int) -> None:
        super().__init__()
        self.shape = shape
        self.query = nn.Parameter(torch.zeros(1, shape.queries, shape.hidden))
        crosses = [i % shape.every == 0 for i in range(shape.layers)]
        blocks = nn.ModuleList(Block(shape.block, crosses=each) for each in crosses)
        self.qformer = nn.ModuleDict(
            {
                "layernorm": nn.LayerNorm(shape.hidden, eps=shape.eps),
                "encoder": nn.ModuleDict({"layer": blocks}),
            }
        )
        self.linear = nn.Linear(shape.hidden, shape.out)
        self.inputs = {
            "speech": Port("float32", ("batch", "pairs", shape.width)),
            "pairs_lengths": Port("int64", ("batch",), counts="pairs"),
        }
        self.outputs = {
            "audio_embeds": Port("float32", ("batch", "rows", shape.out)),
            "audio_embeds_lengths": Port("int64", ("batch",), counts="rows"),
        }
        # What is compared has a last window that is not whole.
        self.spans = {"pairs": Span(1, min(8 * shape.window + shape.window // 3, most), most)}

    def forward(self, speech: Tensor, pairs_lengths: Tensor) -> tuple[Tensor, Tensor]:
        """[batch, pairs, width], [batch] -> [batch, windows * queries, out], [batch].

        What is behind a row's length is taken for zeros, as the row alone would be filled up.
        """
        batch, pairs, width = speech.shape
        size, queries = self.shape.window, self.shape.queries
        count = (pairs + (size - 1)) // size
        real = torch.arange(pairs) < pairs_lengths[:, None]
        frames = nn.functional.pad(speech * real[..., None].float(), (0, 0, 0, size - 1))
        windows = frames[:, : count * size].reshape(-1, size, width)
        x = self.qformer["layernorm"](self.query)
        for block in self.qformer["encoder"]["layer"]:  # pyright: ignore
            x = block(x, windows, windows, nn.Identity())
        embeds = self.linear(x).reshape(batch, -1, self.shape.out)
        return embeds, (pairs_lengths + (size - 1)) // size * queries


def tiny() -> WindowQFormer:
    """The smallest that computes something, with random weights, for tests."""
    shape = Shape(
        width=20, hidden=24, heads=4, layers=3, intermediate=32, queries=3, window=15, out=18,
        every=2,
    )  # fmt: skip
    return randomised(WindowQFormer(shape, 200))
