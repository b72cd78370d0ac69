"""The bridge of most audio LLMs: frames, a few of them side by side, through linear layers.

It projects an encoder's output into the LLM's width: audio-llm (two layers and a norm), Voxtral
and Audio Flamingo (two layers), Qwen2-Audio (one), Ultravox (two, gated, among RMS norms).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from alm.errors import BadCheckpoint
from alm.ports import Port, Span
from wrappers import Wrapper, dialect, randomised
from wrappers.layers.decoder_layers import Norm
from wrappers.layers.spec import ACTIVATIONS

USUAL, MOST = 500, 1500  # frames where their number is not fixed: 10 and 30 s of a Whisper
BEFORE, BETWEEN, AFTER = PLACES = ("before", "between", "after")  # of RMS norms
RMS_EPS = 1e-6  # Ultravox's; no config says it


def swiglu(x: Tensor) -> Tensor:
    """The first half of the last axis, gated by the second (Shazeer 2020)."""
    values, gate = x.chunk(2, -1)
    return F.silu(gate) * values


GATED = {"swiglu": swiglu}  # they halve the width
BETWEEN_LAYERS = ACTIVATIONS | GATED


class Activation(nn.Module):
    """A function in its place among the layers, whose numbers are the checkpoints' own."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


class Projector(Wrapper):
    """speech [batch, frames, width] -> audio_embeds [batch, frames / stack, widths[-1]].

    `stack` consecutive frames are one row of widths[0], which is stack * width. The weights are
    `layers.0`, `layers.2` and so on, what is between them being the activation; the norm, if there
    is one, comes next. With `rms` the first layer is `layers.1`, and what it leaves out keeps its
    number: before all layers, behind each activation, at the end.

    Args:
        widths: of the rows that go in, between the layers, and of the LLM.
        frames: how many there are, or the name of the axis; then frames that fill no row are left
            out.
        stack: frames in a row.
        bias: whether the linear layers have one.
        activation: between the layers, by its name in transformers, or `swiglu`, behind which
            half of a width is left.
        norm: whether a LayerNorm is the end; `eps` is what it adds to the variance.
        rms: where there is an RMS norm, of PLACES.

    Raises:
        BadCheckpoint: sizes that do not go into each other, or an unknown activation.
    """

    role = "bridge"

    def __init__(
        self,
        widths: Sequence[int],
        *,
        frames: int | str = "frames",
        stack: int = 1,
        bias: bool = True,
        activation: str = "gelu",
        norm: bool = False,
        eps: float = 1e-5,
        rms: Sequence[str] = (),
    ) -> None:
        super().__init__()
        if wrong := _faults(widths, frames, stack, activation):
            raise BadCheckpoint(f"no projector is like this: {'; '.join(wrong)}")
        self.stack = stack
        if rms:  # written in the dialect that is bound
            self.dialect = dialect.current()
            self.opset = self.dialect.OPSET

        def normed(place: str, width: int) -> list[nn.Module]:
            if not rms:
                return []
            return [Norm(width, RMS_EPS, 0.0) if place in rms else nn.Identity()]

        share = 2 if activation in GATED else 1
        layers = normed(BEFORE, widths[0])
        for i, (wide, out) in enumerate(zip(widths, widths[1:], strict=False)):
            if i:
                layers.append(Activation(BETWEEN_LAYERS[activation]))
                wide //= share
                layers += normed(BETWEEN, wide)
            layers.append(nn.Linear(wide, out, bias=bias))
        layers += [nn.LayerNorm(widths[-1], eps)] if norm else []
        self.layers = nn.Sequential(*layers, *normed(AFTER, widths[-1]))
        rows = frames // stack if isinstance(frames, int) else _rows(frames, stack)
        self.inputs = {"speech": Port("float32", ("batch", frames, widths[0] // stack))}
        self.outputs = {"audio_embeds": Port("float32", ("batch", rows, widths[-1]))}
        self.spans = {}
        if isinstance(frames, str):
            usual, most = (n // stack * stack for n in (USUAL, MOST))
            self.spans[frames] = Span(stack, usual, most)
            self.pieces = frames  # no row depends on another

    def forward(self, speech: Tensor) -> Tensor:
        """[batch, frames, width] -> [batch, frames / stack, out]."""
        if self.stack > 1:
            batch, frames, width = speech.shape
            rows = frames // self.stack
            whole = speech[:, : rows * self.stack]
            speech = whole.reshape(batch, rows, self.stack * width)
        return self.layers(speech)


def _rows(frames: str, stack: int) -> str:
    """The axis of what comes out, where that of what goes in has a name."""
    return frames if stack == 1 else f"{frames}_by_{stack}"


def _faults(widths: Sequence[int], frames: int | str, stack: int, activation: str) -> list[str]:
    """What keeps these from being a projector, in words."""
    wrong = []
    if len(widths) < 2 or min(widths) < 1:
        wrong.append(f"widths {list(widths)} are not two or more above zero")
    if stack < 1:
        wrong.append(f"{stack} frames in a row are none")
    elif widths and widths[0] % stack:
        wrong.append(f"{stack} frames side by side are not {widths[0]} wide")
    if isinstance(frames, int) and stack > 0 and (frames < stack or frames % stack):
        wrong.append(f"{frames} frames are no rows of {stack}")
    if activation not in BETWEEN_LAYERS:
        known = ", ".join(BETWEEN_LAYERS)
        wrong.append(f"activation {activation!r} is unknown; known are {known}")
    odd = [width for width in widths[1:-1] if width % 2]
    if activation in GATED and odd:
        wrong.append(f"{odd[0]} numbers have no halves, one to gate the other")
    return wrong


def tiny() -> Projector:
    """The smallest that computes something, with random weights, for tests."""
    return randomised(Projector([64, 48, 24], stack=2, norm=True))
