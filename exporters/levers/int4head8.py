"""int4head8: as int4, with `lm_head`, which decides the token, in 8 bits.

It costs a sixth of a small model's speed (the head of Llama-3.2-1B is a fifth of its weights) and
nothing that can be noticed of a large one's.
"""

from __future__ import annotations

from dataclasses import dataclass

from exporters.levers import int4


@dataclass(frozen=True)
class Lever(int4.Lever):
    """4 bits in a decoder's layers, 8 in its head."""

    sensitive: tuple[str, ...] = (int4.LM_HEAD,)

    STORAGE = int4.storage(int4.SCHEME, (int4.LM_HEAD,))
    LEAVES_ALONE = f"lm_head, which gets 8 bits; {int4.Lever.LEAVES_ALONE}"
