"""The bridge of most audio LLMs: frames, a few of them side by side, through linear layers.

It projects an encoder's output into the LLM's width: audio-llm (two layers and a norm), Voxtral
and Audio Flamingo (two layers), Qwen2-Audio (one).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor, nn

from alm.errors import BadCheckpoint
from alm.ports import Port, Span
from wrappers import Wrapper, randomised
from wrappers.layers.spec import ACTIVATIONS

USUAL, MOST = 500, 1500  # frames where their number is not fixed: 10 and 30 s of a Whisper


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
    is one, comes next.

    Args:
        widths: of the rows that go in, between the layers, and of the LLM.
        frames: how many there are, or the name of the axis; then frames that fill no row are left
            out.
        stack: frames in a row.
        bias: whether the linear layers have one.
        activation: between the layers, by its name in transformers.
        norm: whether a LayerNorm is the end; `eps` is what it adds to the variance.

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
    ) -> None:
        super().__init__()
        if wrong := _faults(widths, frames, stack, activation):
            raise BadCheckpoint(f"no projector is like this: {'; '.join(wrong)}")
        self.stack = stack
        layers: list[nn.Module] = []
        for wide, out in zip(widths, widths[1:], strict=False):
            layers += [nn.Linear(wide, out, bias=bias), Activation(ACTIVATIONS[activation])]
        layers[-1:] = [nn.LayerNorm(widths[-1], eps)] if norm else []
        self.layers = nn.Sequential(*layers)
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
    if activation not in ACTIVATIONS:
        wrong.append(f"activation {activation!r} is unknown; known are {', '.join(ACTIVATIONS)}")
    return wrong


def tiny() -> Projector:
    """The smallest that computes something, with random weights, for tests."""
    return randomised(Projector([64, 48, 24], stack=2, norm=True))
