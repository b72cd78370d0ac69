"""Kimi-Audio's bridge (Kimi Team 2025): what is heard, and the embeddings of its ids, as one sum.

The original has two streams of tokens, one of sound and one of text, and adds their embeddings; in
the place of a clip the text's is a blank. A row of a clip is (E[id] + adaptor(frames)) * sqrt(2) +
E[blank], where E is the LLM's table. Here `codes` holds E[id] * sqrt(2) + E[blank], and the last
norm of the adaptor is scaled by sqrt(2).
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from alm.ports import Port, Span
from wrappers import Wrapper, randomised
from wrappers.bridges.projector import MOST, USUAL, Activation

STACK = 4  # frames of a row


class CodedProjector(Wrapper):
    """speech [batch, frames, width], audio_ids [batch, rows] -> audio_embeds [batch, rows, out].

    A row is four frames side by side through two layers, SiLU between them, and a norm; the weights
    are `layers.0`, `layers.3` and `layers.4`, as in the original, which has a dropout at 2.

    Args:
        width: of a frame.
        out: of the LLM.
        codes: how many ids there are.
        eps: what the norm adds to the variance.
        most: windows of 1500 frames of a clip.
    """

    role = "bridge"

    def __init__(self, width: int, out: int, codes: int, *, eps: float, most: int = 1) -> None:
        super().__init__()
        self.codes = nn.Embedding(codes, out)
        self.layers = nn.Sequential(
            nn.Linear(STACK * width, out),
            Activation(F.silu),
            nn.Identity(),
            nn.Linear(out, out),
            nn.LayerNorm(out, eps),
        )
        self.inputs = {
            "speech": Port("float32", ("batch", "frames", width)),
            "audio_ids": Port("int64", ("batch", "rows"), below=codes),
        }
        self.outputs = {"audio_embeds": Port("float32", ("batch", "rows", out))}
        self.spans = {
            "frames": Span(STACK, USUAL, MOST * most),
            "rows": Span(1, USUAL // STACK, MOST // STACK * most),
        }

    def forward(self, speech: Tensor, audio_ids: Tensor) -> Tensor:
        """[batch, frames, width], [batch, rows] -> [batch, rows, out].

        Frames behind the last row are left out; where there are fewer, they are zeros.
        """
        batch, rows = audio_ids.shape
        frames = F.pad(speech, (0, 0, 0, STACK * rows))[:, : STACK * rows]
        heard = self.layers(frames.reshape(batch, rows, STACK * speech.shape[2]))
        return heard + self.codes(audio_ids)


def tiny() -> CodedProjector:
    """The smallest that computes something, with random weights, for tests."""
    return randomised(CodedProjector(16, 24, 20, eps=1e-6))
