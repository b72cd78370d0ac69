"""Seconds among a clip's embeddings: where they stand, and what a manifest may not say of them."""

from __future__ import annotations

import numpy as np
import pytest

from alm.errors import BadArtifacts
from alm.facts import PromptFacts
from alm.text.markers import Markers


def encode(text: str) -> list[int]:
    return [*text.encode()]


def test_a_time_stands_where_its_seconds_are_full() -> None:
    markers = Markers(PromptFacts(marker_seconds=5, marker_rows=62, marker_rate=12_500), encode)
    assert markers.places(62) == []
    assert markers.places(63) == [(62, [53])]  # 62.5 embeddings are 5 s
    assert markers.places(125) == [(62, [53]), (124, [49, 48])]
    assert markers.ids(125, [9]) == [9] * 62 + [53] + [9] * 62 + [49, 48] + [9]


def test_embeddings_keep_their_order_around_the_times() -> None:
    markers = Markers(PromptFacts(marker_seconds=1, marker_rows=2, marker_rate=2000), encode)
    embeds = np.arange(12, dtype=np.float32).reshape(4, 3)
    row = markers.woven(embeds)
    assert [piece.ndim for piece in row] == [2, 1, 2, 1]  # none behind the last time
    assert np.array_equal(np.concatenate([row[0], row[2]]), embeds)
    assert [row[1].tolist(), row[3].tolist()] == [[49], [50]]


def test_without_times_a_clip_is_its_embeddings() -> None:
    none = Markers(PromptFacts(), encode)
    embeds = np.ones((3, 2), np.float32)
    assert [piece is embeds or piece.tolist() for piece in none.woven(embeds)] == [embeds.tolist()]
    assert none.ids(3, [7]) == [7, 7, 7]


@pytest.mark.parametrize("rows, rate", [(0, 12_500), (63, 12_500), (62, 0)])
def test_more_times_than_places_are_refused(rows: int, rate: int) -> None:
    with pytest.raises(BadArtifacts, match=f"marker_rows {rows} for marker_seconds 5"):
        Markers(PromptFacts(marker_seconds=5, marker_rows=rows, marker_rate=rate), encode)
