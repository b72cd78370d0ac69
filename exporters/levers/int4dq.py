"""int4dq: 4 bits a weight of a decoder in standard ONNX, which TensorRT keeps in 4 bits.

Symmetric blocks of 128 (less where 128 does not divide a product's inputs), clipped where that
loses least; `lm_head`, which decides the token, in 8 bits. Else as `int8dq`, float16 included.
DequantizeLinear knows blocks and int4 from opset 21 on, so a decoder of an older dialect is
written in 21: TensorRT reads that from 10.0 on, ONNX Runtime from 1.18.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from alm.precision import Codes, everywhere
from exporters.levers import Embeds, _dequantized, int4, int8, int8dq
from wrappers import Wrapper

DECODER = replace(
    int8dq.STORED,
    layers=Codes("int4", _dequantized.BLOCKS[0], "float16"),
    head=int8dq.STORED.layers,
    cache="float16",
    opset=_dequantized.OPSET,
    bound=int4.BOUND,
)


@dataclass(frozen=True)
class Lever(int8dq.Lever):
    """An eighth of the bytes in a decoder's layers; other parts as `int8dq` has them."""

    bits: int = 4
    sensitive: tuple[str, ...] = (int4.LM_HEAD,)

    STORAGE = everywhere(int8dq.STORED, decoder=DECODER, table=int8.ROWS)
    LEAVES_ALONE = (
        "lm_head, encoders and bridges, where 4 bits cost words and which get 8; what int8dq "
        "leaves alone: convolutions, front ends, attention's products, norms, the cache"
    )

    def prepare(self, part: Wrapper, embeds: Embeds) -> None:
        """The KV cache is kept in float16; the graph is of an opset that knows int4."""
        super().prepare(part, embeds)
        if part.role == "decoder":
            part.opset = max(part.opset, _dequantized.OPSET)
