"""int7: as int8, with 7 bits for the weights of integer products; for x86 without VNNI.

There ONNX Runtime multiplies uint8 inputs with int8 weights faster than with uint8 weights, since
it adds pairs of products in 16 bits. They overflow with weights to 127, which is why `int8` stores
uint8; with weights to 64 they cannot: 2 x 255 x 64 = 32640. What rounding costs in a weight is
doubled, what it costs in an input is the same. With VNNI, and on ARM, nothing is gained.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import onnx_ir as ir

from alm.precision import Codes, everywhere
from exporters.levers import int8

# It may cost more than `int8`, which is therefore taken where nobody says which.
INTEGERS = replace(int8.INTEGERS, layers=Codes("int8", scale="float32"), bound=0.3)


@dataclass(frozen=True)
class Lever(int8.Lever):
    """Weights in 7 bits of a byte, in encoders and bridges; a decoder as `int8` has it."""

    WEIGHTS: ClassVar[int8.Weights] = int8.Weights("int7", ir.DataType.INT8, zero=0, top=64)
    STORAGE = everywhere(INTEGERS, decoder=int8.Lever.STORAGE["decoder"], table=int8.ROWS)
