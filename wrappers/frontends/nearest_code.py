"""Rows of an encoder as ids: each is the nearest row of a code book (van den Oord et al. 2017).

It stands among the front ends because no lever may round it: an id is another, or it is not.
"""

from __future__ import annotations

from torch import Tensor, nn

from alm.ports import Port, Span
from wrappers import Wrapper, randomised

USUAL = 25  # rows that backends tune for: 2 s


class NearestCode(Wrapper):
    """voice [batch, rows, width] -> audio_ids [batch, rows], the first where two are as near.

    |x - c|^2 is |x|^2 + |c|^2 - 2 x c, of which |x|^2 is the same for all codes: `distance` has the
    weights -2 c and the biases |c|^2.

    Args:
        width: of a row.
        codes: of the code book.
        most: rows that are looked up at a time.
    """

    role = "frontend"
    exact = True
    pieces = "rows"

    def __init__(self, width: int, codes: int, most: int) -> None:
        super().__init__()
        self.distance = nn.Linear(width, codes)
        self.inputs = {"voice": Port("float32", ("batch", "rows", width))}
        self.outputs = {"audio_ids": Port("int64", ("batch", "rows"), below=codes)}
        self.spans = {"rows": Span(1, min(USUAL, most), most)}

    def forward(self, voice: Tensor) -> Tensor:
        """[batch, rows, width] -> [batch, rows]."""
        return self.distance(voice).argmin(-1)


def tiny() -> NearestCode:
    """The smallest that computes something, with random weights, for tests."""
    return randomised(NearestCode(32, 20, 40))
