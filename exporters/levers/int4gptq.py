"""int4gptq: as int4head8, with codes that lose least of what the decoder hears (GPTQ).

Bytes, operators and time are those of `int4head8`: only the choice of the codes is another. What
goes into each linear is learned from clips: the model's own prompts around their audio, and its own
answers behind them. See `_compensated`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np

from alm.precision import PLAINEST
from exporters.lazy import JOINED
from exporters.levers import Hear, _compensated, _moments, int4head8, int8
from exporters.levers._nbits import Quantized
from exporters.matmuls import ROUTERS, Product
from wrappers import Wrapper
from wrappers.checkpoint.weights.hollow import weight


@dataclass(frozen=True)
class Lever(int4head8.Lever):
    """4 bits in a decoder's layers, fitted to clips, 8 in its head."""

    _codes: dict[str, Quantized] = field(default_factory=dict, init=False, repr=False)
    findings: dict[str, Any] = field(default_factory=dict, init=False, repr=False)

    STORAGE = int4head8.Lever.STORAGE | {
        "decoder": replace(int4head8.Lever.STORAGE["decoder"], fitted=True)
    }
    LEAVES_ALONE = (
        f"experts and what no clip runs through, which get their codes as in int4head8; "
        f"{int4head8.Lever.LEAVES_ALONE}"
    )

    def calibrate(self, part: Wrapper, hear: Hear) -> None:
        """Choose the codes of a decoder's linears by what goes into them."""
        self._codes.clear()
        if not self.STORAGE.get(part.role, PLAINEST).fitted:
            return
        wanted = [self._wanted(part, group) for group in _moments.groups(part, hear)]
        rows: list[int] = []
        for group, moments in _moments.gather(part, [g for g in wanted if g.members], hear):
            rows.append(moments.rows)
            compensation = _compensated.Compensation(moments.second)
            for name in group.members:
                matrix = weight(part, f"{name}.weight")
                made = _compensated.quantize(matrix, self.scheme, compensation)
                self._codes[f"{name}.weight"] = made
        self.findings["compensated"] = {"linears": len(self._codes), "rows": max(rows, default=0)}

    def made(self, product: Product) -> Callable[[], Quantized] | None:
        """See `int4.Lever.made`."""
        first, joined = product.name.removesuffix(JOINED), product.name.endswith(JOINED)
        if first not in self._codes:
            return None
        if not joined:
            return partial(self._joined, [first])
        names, outputs = list(self._codes), product.sizes[1]
        some = [n for n in names if _owner(n) == _owner(first)]
        some = some[some.index(first) :]
        while sum(len(self._codes[name].scales) for name in some) > outputs:
            some.pop()
        whole = sum(len(self._codes[name].scales) for name in some) == outputs
        return partial(self._joined, some) if whole else None

    def _joined(self, names: Sequence[str]) -> Quantized:
        arrays = zip(*(self._codes[name] for name in names), strict=True)
        return Quantized(*(np.concatenate(each) for each in arrays))

    def _wanted(self, part: Wrapper, group: _moments.Group) -> _moments.Group:
        """The sums of a group's input, for those of its linears that get 4 bits."""
        first: Any = part.get_submodule(group.members[0])
        names = tuple(name for name in group.members if not self._other(f"{name}.weight"))
        wide = first.in_features >= int8.LEAST
        return _moments.Group(names if wide else (), True, first.in_features)

    def _other(self, name: str) -> bool:
        return self.careful(name) or name.endswith(ROUTERS)


def _owner(name: str) -> str:
    """The module that holds the Linear of a weight."""
    return name.rpartition(".")[0].rpartition(".")[0]
