"""Neighbours that are alike become one, and nothing else moves."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from alm.audio.merging import check, merged
from alm.errors import BadOption

AXES = np.eye(3, dtype=np.float32)


def test_the_likest_are_averaged_and_the_rest_stays() -> None:
    x, y, z = AXES
    embeds = np.stack([x, 3 * x, y, y + 0.1 * z, z])
    found, cosine = merged(embeds, 60)
    np.testing.assert_allclose(found, [2 * x, y + 0.05 * z, z])
    assert cosine == pytest.approx(1 / np.sqrt(1.01))
    found, cosine = merged(embeds, 80)
    np.testing.assert_allclose(found, [2 * x, y, y + 0.1 * z, z])
    assert cosine == pytest.approx(1)


@pytest.mark.parametrize("percent, kept", [(100, 7), (99, 7), (85, 6), (50, 4), (1, 1), (1e-9, 1)])
def test_so_many_are_left(percent: float, kept: int) -> None:
    embeds = np.random.default_rng(0).standard_normal((7, 4)).astype(np.float32)
    found, cosine = merged(embeds, percent)
    assert found.shape == (kept, 4) and found.dtype == np.float32
    assert (cosine is None) == (kept == 7)
    if kept == 1:
        np.testing.assert_allclose(found[0], embeds.mean(0), rtol=1e-5)


def test_the_sum_is_kept_by_weight_in_long_runs() -> None:
    embeds = np.repeat(AXES, [5, 1, 3], axis=0)
    found, cosine = merged(embeds, 33)
    np.testing.assert_allclose(found, AXES)
    assert cosine == pytest.approx(1)


@pytest.mark.parametrize("rows", [0, 1])
def test_nothing_to_merge_is_left_alone(rows: int) -> None:
    found, cosine = merged(np.ones((rows, 4), np.float32), 50)
    assert found.shape == (rows, 4) and cosine is None


def test_silence_is_finite_and_like_itself() -> None:
    found, cosine = merged(np.stack([0 * AXES[0], 0 * AXES[0], AXES[0], AXES[1]]), 75)
    np.testing.assert_array_equal(found, [0 * AXES[0], AXES[0], AXES[1]])
    assert cosine == 1
    found, cosine = merged(np.stack([0 * AXES[0], AXES[0]]), 50)
    assert np.isfinite(found).all() and cosine == 0


@pytest.mark.parametrize("wrong", [0, -1, 100.5, float("nan"), "50", True, None])
def test_what_is_no_percentage_is_refused(wrong: Any) -> None:
    with pytest.raises(BadOption, match="merge_audio is the percentage of a clip's embeddings"):
        check(wrong)
