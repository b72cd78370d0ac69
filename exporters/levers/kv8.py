"""int8 KV cache: a quarter of its bytes; a prompt's attention takes 2.4 times as long.

One thread, 32 heads on 8: a prompt of 128 took 170 ms for 70, and a step after 1024
positions 9.8 for 10.5.
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from alm.errors import BadOption
from alm.precision import Storage
from exporters.levers import Embeds
from wrappers import Wrapper
from wrappers.layers.decoder import Decoder


@dataclass(frozen=True)
class Lever:
    """One scale for each number of a head, from the words of the prompts and of the table."""

    STORAGE = {"decoder": Storage(cache="int8", backends=("onnxruntime",), bound=0.5)}
    LEAVES_ALONE = "all weights, and everything but the cache: join it to another, as in int4+kv8"

    def prepare(self, part: Wrapper, embeds: Embeds) -> None:
        """Calibrate the scales and keep the cache in int8."""
        if not isinstance(part, Decoder):
            return
        if not part.dialect.INTEGER_CACHE:
            raise BadOption("an int8 KV cache needs the dialect ort: say --dialect ort")
        part.calibrate(embeds())
        part.keep_state_in("int8")

    def rewrite(self, model: ir.Model, role: str) -> ir.Model:
        """Nothing: the graph was traced with it."""
        return model
