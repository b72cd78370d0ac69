"""What makes a part smaller or faster, one file each, with a frozen dataclass `Lever`:

- `TABLE`: how the embedding table is stored; `LEAVES_ALONE`: what is not touched, and why,
- `BOUND`: by role, the most that a part may lose by it, or the export stops: root mean square of
  the errors over that of the values (`parity.Parity.rms`; docs/precision.md has the figures behind
  each). A part of a role that is not in it is left alone, and must be exact as in float32,
- `ENGINE`: the only engine that runs what comes out, "" for any,
- `prepare(part, embeds)` before the part is traced (`embeds()` gives embeddings of tokens
  [n, hidden] to calibrate with), `rewrite(model, role)` on the graph, whose weights are lazy.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

Embeds = Callable[[], Tensor]

WEIGHTED = ("encoder", "bridge", "decoder", "table")  # roles that levers change: not front ends


def bound(most: float, **others: float) -> dict[str, float]:
    """The same bound for every role but these."""
    return dict.fromkeys(WEIGHTED, most) | others
