"""Fewer embeddings of a clip: neighbours that are most alike are averaged before the prompt.

The first stage of SA-MAP (preprints.org 202606.0741): speech, and silence above all, has stretches
in which one embedding says what the next one does. A decoder that is given fewer of them fills a
shorter prompt and a smaller KV cache.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from alm.errors import BadOption

WHOLE = 100.0  # percent


def check(percent: Any) -> None:
    """Refuse, with BadOption, what is no share of a clip's embeddings."""
    number = isinstance(percent, int | float) and not isinstance(percent, bool)
    if not number or not 0 < percent <= WHOLE:
        raise BadOption(
            f"merge_audio is the percentage of a clip's embeddings that is left, above 0 and at "
            f"most 100, not {percent!r:.40}"
        )


def merged(embeds: np.ndarray, percent: float) -> tuple[np.ndarray, float | None]:
    """So many percent of embeddings [n, hidden], at least one where there is one.

    Of all pairs of neighbours those of the highest cosine are joined until few enough are left; a
    run of joined ones becomes its mean.

    Returns:
        float32 [kept, hidden], and the lowest cosine of a joined pair, None where none was joined.
    """
    count = len(embeds)
    kept = max(1, int(np.ceil(count * percent / WHOLE)))
    if kept >= count:
        return embeds, None
    lengths = np.linalg.norm(embeds, axis=1)
    products = np.einsum("ij,ij->i", embeds[1:], embeds[:-1])
    both = lengths[1:] * lengths[:-1]
    # An embedding of zeros has no direction: it is like another one of zeros, and like no other.
    alike = (lengths[1:] == 0) & (lengths[:-1] == 0)
    cosines = np.where(both > 0, products / np.where(both > 0, both, 1), alike)
    order = np.argsort(-cosines, kind="stable")  # the earlier of two that are equal
    joined = order[: count - kept]
    starts = np.ones(count, bool)
    starts[joined + 1] = False
    first = np.flatnonzero(starts)
    sums = np.add.reduceat(embeds.astype(np.float32), first, axis=0)
    sizes = np.diff(first, append=count)
    return sums / sizes[:, None].astype(np.float32), float(cosines[joined[-1]])
