"""Long recordings are cut in pauses, and overlap where there are none."""

from __future__ import annotations

import numpy as np
import pytest

from alm.joins.places import Place, places

RATE, MOST, LEAST = 16_000, 10 * 16_000, 8_000


def talk(seconds: float, pauses: list[tuple[float, float]]) -> np.ndarray:
    """Noise with these pauses (start, end in seconds), 40 dB below it."""
    pcm = 0.1 * np.random.default_rng(0).standard_normal(round(seconds * RATE))
    for start, end in pauses:
        pcm[round(start * RATE) : round(end * RATE)] *= 0.01
    return pcm.astype(np.float32)


@pytest.mark.parametrize("seconds", [0.1, 9.99, 10.0, 10.1, 31.0, 61.0])
@pytest.mark.parametrize("overlaps", [False, True])
@pytest.mark.parametrize("pauses", [[], [(7, 7.4), (8.2, 8.5), (20.0, 20.3), (27.5, 27.7)]])
def test_every_sample_is_heard_and_no_window_is_too_long(
    seconds: float, overlaps: bool, pauses: list[tuple[float, float]]
) -> None:
    pcm = talk(seconds, pauses)
    found = places(pcm, RATE, MOST, LEAST, overlaps)
    assert found[0].start == 0 and found[-1].stop == len(pcm) and found[0].overlap == 0
    for before, place in zip(found, found[1:], strict=False):
        assert place.start == before.stop - place.overlap and place.stop > before.stop
    assert all(0 < place.stop - place.start <= MOST for place in found)
    assert overlaps or not any(place.overlap for place in found)
    assert len(found) == 1 or found[-1].stop - found[-1].start >= LEAST


def test_a_cut_is_in_the_middle_of_a_pause() -> None:
    first, second = places(talk(15, [(7.5, 7.9)]), RATE, MOST, LEAST, overlaps=True)
    assert 7.5 * RATE < first.stop == second.start < 7.9 * RATE and second.overlap == 0


def test_a_pause_too_early_or_too_short_is_none() -> None:
    for pause in ((5.0, 5.5), (8.0, 8.05)):
        first, second = places(talk(15, [pause]), RATE, MOST, LEAST, overlaps=True)
        assert first == Place(0, MOST) and second == Place(8 * RATE, 15 * RATE, 2 * RATE)


def test_silence_fills_its_windows() -> None:
    found = places(np.zeros(25 * RATE, np.float32), RATE, MOST, LEAST, overlaps=True)
    assert [place.overlap for place in found] == [0, 0, 0]
    assert all(place.stop - place.start > 0.98 * MOST for place in found[:-1])
