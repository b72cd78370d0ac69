"""k-means: the number of the nearest centre for each feature vector, a clip's units."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from alm.ports import Port, Span
from wrappers import Wrapper, randomised
from wrappers.bridges.projector import MOST, USUAL

NONE = -1  # behind the end of a row


class KMeans(Wrapper):
    """speech [batch, frames, width], speech_lengths [batch] -> units int64 [batch, frames].

    The centre with the least |x|^2 - 2 x c + |c|^2, the first of several; -1 behind a row's end.
    Sums are in this order because near ties fall as rounding has it.

    Args:
        centres: how many there are.
        width: of a feature vector.
    """

    role = "bridge"
    exact = True

    def __init__(self, centres: int, width: int) -> None:
        super().__init__()
        self.centres = nn.Parameter(torch.zeros(centres, width))
        self.inputs = {
            "speech": Port("float32", ("batch", "frames", width)),
            "speech_lengths": Port("int64", ("batch",), counts="frames"),
        }
        self.outputs = {"units": Port("int64", ("batch", "frames"))}
        self.spans = {"frames": Span(1, USUAL // 2, 4 * MOST)}

    def forward(self, speech: Tensor, lengths: Tensor) -> Tensor:
        """[batch, frames, width], [batch] -> [batch, frames]."""
        own = speech.pow(2).sum(-1, keepdim=True)
        theirs = self.centres.pow(2).sum(-1)
        units = (own - 2.0 * (speech @ self.centres.T) + theirs).argmin(-1)
        real = torch.arange(speech.shape[1]) < lengths[:, None]
        return torch.where(real, units, NONE)


def tiny() -> KMeans:
    """The smallest that computes something, with random weights, for tests."""
    return randomised(KMeans(20, 24))
