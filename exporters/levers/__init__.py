"""What makes a part smaller or faster, one file each, with a frozen dataclass `Lever`:

- `TABLE`: how the embedding table is stored; `LEAVES_ALONE`: what is not touched, and why,
- `BOUND`: the most that a part may lose by it, or the export stops: root mean square of the errors
  over that of the values (`parity.Parity.rms`); docs/precision.md has the figures behind each,
- `ENGINE`: the only engine that runs what comes out, "" for any,
- `prepare(part, embeds)` before the part is traced (`embeds()` gives embeddings of tokens
  [n, hidden] to calibrate with), `rewrite(model, role)` on the graph, whose weights are lazy.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

Embeds = Callable[[], Tensor]
