"""float16: weights and products of linear layers and convolutions, half the bytes.

Everything between them stays float32: norms, softmax, activations and the residual stream, because
float16 norms are the known cause of silently wrong transcripts. Front ends are left alone: their
powers span more than float16 can hold.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from wrappers import Wrapper

LEAVES_ALONE = "front ends, norms, softmax, activations, biases, the residual stream"


class Half(nn.Module):
    """A linear or convolution layer whose product is taken in float16; float32 in and out."""

    def __init__(self, layer: nn.Linear | nn.Conv1d | nn.Conv2d) -> None:
        super().__init__()
        self.bias = layer.bias
        layer.bias = None  # pyright: ignore
        self.layer = layer.half()
        # A bias is added behind the product, over the channels.
        self.spread = (slice(None),) + (None,) * (layer.weight.ndim - 2)

    def forward(self, x: Tensor) -> Tensor:
        y = self.layer(x.half()).float()
        return y if self.bias is None else y + self.bias[self.spread]


def _halve(module: nn.Module) -> None:
    for name, child in module.named_children():
        if isinstance(child, (nn.Linear, nn.Conv1d, nn.Conv2d)):
            setattr(module, name, Half(child))
        else:
            _halve(child)


@dataclass(frozen=True)
class Lever:
    """Half of the bytes; worst error about 1e-3 of the largest value."""

    on = "module"
    table_dtype = "float16"

    @torch.no_grad()
    def pull(self, part: Wrapper) -> Wrapper:
        """Change the part in place."""
        if part.role == "frontend":
            return part
        _halve(part)
        part.keep_state_in("float16")
        return part
