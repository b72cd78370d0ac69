"""What makes a part smaller or faster, one file each, with a frozen dataclass `Lever`:

- `STORAGE`: by role, what it stores and needs, as data (`alm.precision.Storage`). The export writes
  it into the manifest: targets, planner, lint and backends decide by it and know no lever by name.
  Parts of a role that is not in it are left alone, and must be exact as in float32. `bound` is the
  most that a part may lose, or the export stops: root mean square of the errors over that of the
  values (`parity.Parity.rms`; docs/precision.md has the figures behind each),
- `LEAVES_ALONE`: what is not touched, and why,
- `prepare(part, embeds)` before the part is traced (`embeds()` gives embeddings of tokens
  [n, hidden] to calibrate with), `rewrite(model, role)` on the graph, whose weights are lazy.

A lever may have settings, which are the fields of its dataclass; `FIRST`, where others joined to it
must come after it; and `calibrate(part, hear)`, where parts of a role are `fitted` to what they
hear: it is called after `prepare`, `hear(n)` runs the part on so many clips of `--calibrate`, on
all of them with 0, and what the lever then has in `findings` goes into the manifest. Such a part is
compared with its module on clips, since noise is not what the lever was fitted to.

A lever that leaves something out of the module has `shrink(part, embeds, hear)` and `hears(role)`,
which says whether it wants clips. It cuts the part in place, after the part was asked what it is
compared with and before other levers look at it; `hear` is None where there are no clips. It gives
back, by names of ports, which places of their second axis the part still has.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

Embeds = Callable[[], Tensor]
Hear = Callable[[int], None]
