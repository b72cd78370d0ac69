"""Qwen-Audio's bridge: one linear layer, and a learned row before a clip and one behind it.

They stand where the text has the tags around a clip, and so the tags' own embeddings are not used.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from alm.ports import Port, Span
from wrappers import Wrapper, randomised
from wrappers.bridges.projector import MOST, USUAL

TAGGED = "tagged_rows"  # the axis of what comes out: two more than `rows`


class TaggedProjector(Wrapper):
    """speech [batch, rows, width], audio_embeds_lengths [batch] -> audio_embeds.

    Args:
        width: of the rows that go in.
        out: of the LLM.
    """

    role = "bridge"

    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.proj = nn.Linear(width, out)
        self.tags = nn.Embedding(2, out)
        self.inputs = {
            "speech": Port("float32", ("batch", "rows", width)),
            "audio_embeds_lengths": Port("int64", ("batch",), counts="rows"),
        }
        self.outputs = {"audio_embeds": Port("float32", ("batch", TAGGED, out))}
        self.spans = {"rows": Span(1, USUAL // 2, MOST // 2)}

    def forward(self, speech: Tensor, lengths: Tensor) -> Tensor:
        """[batch, rows, width], [batch] -> [batch, rows + 2, out]; lengths count the tags as well.

        What stands behind a row's second tag has no meaning.
        """
        first, last = self.tags.weight.unbind(0)
        rows = self.proj(speech)
        edge = first.expand(speech.shape[0], 1, -1)
        x = torch.cat((edge, rows, edge), 1)
        at = torch.arange(speech.shape[1] + 2) == lengths[:, None] - 1
        return torch.where(at[..., None], last, x)


def tiny() -> TaggedProjector:
    """The smallest that computes something, with random weights, for tests."""
    return randomised(TaggedProjector(32, 20))
