"""Work is prepared ahead where cores allow, and what it saved is counted."""

from __future__ import annotations

import threading

import pytest

from alm.timings import Stages, ahead


def test_the_next_is_prepared_while_one_is_worked_on() -> None:
    begun = [threading.Event() for _ in range(3)]
    times, seen = Stages(), []
    for item in ahead([0, 1, 2], lambda i: begun[i].set(), side_by_side=True, times=times):
        assert begun[item].is_set() and all(event.wait(5) for event in begun[: item + 2])
        seen.append(item)
    assert seen == [0, 1, 2]


@pytest.mark.parametrize("side_by_side", [True, False])
def test_what_fails_is_raised_where_it_is_wanted(side_by_side: bool) -> None:
    def prepare(item: int) -> None:
        if item == 2:
            raise ValueError("the last")

    seen = []
    with pytest.raises(ValueError, match="the last"):
        for item in ahead([0, 1, 2], prepare, side_by_side, Stages()):
            seen.append(item)
    assert seen == [0, 1]


def test_without_cores_nothing_is_prepared_before_its_turn() -> None:
    prepared: list[int] = []
    for item in ahead([0, 1], prepared.append, side_by_side=False, times=Stages()):
        assert prepared == [*range(item + 1)]
