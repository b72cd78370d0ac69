"""Times in order: what an aligner's labels say, where some of them contradict the others."""

from __future__ import annotations

from collections.abc import Sequence

SHORT = 2  # so many in a row that are wrong are moved to a neighbour; more are spread between two


def in_order(times: Sequence[float]) -> list[int]:
    """The times, none before the one in front of it.

    The longest run of times that never falls is right, as the aligner's authors have it; what
    contradicts it takes the nearer of its neighbours' times, and more than two in a row are spread
    evenly between them.
    """
    right = _longest_rise(times)
    result = list(times)
    at = 0
    while at < len(times):
        if right[at]:
            at += 1
            continue
        end = next((i for i in range(at, len(times)) if right[i]), len(times))
        left = result[at - 1] if at else None
        after = result[end] if end < len(times) else None
        result[at:end] = _between(left, after, end - at)
        at = end
    return [int(time) for time in result]


def _between(left: float | None, right: float | None, count: int) -> list[float]:
    """So many times between two that are right, of which one may be missing."""
    if left is None or right is None:
        known = right if left is None else left
        assert known is not None  # the longest rise has one at least
        return [known] * count
    if count <= SHORT:
        return [left if i + 1 <= count - i else right for i in range(count)]
    step = (right - left) / (count + 1)
    return [left + step * (i + 1) for i in range(count)]


def _longest_rise(times: Sequence[float]) -> list[bool]:
    """Which of the times are in the longest subsequence that never falls.

    Of several the one whose last time comes first, and before it again the first: each time
    follows the earliest of those that the longest may end with. A tree of maxima over the sorted
    times (Fenwick 1994) makes that n log n steps, where trying every pair takes a minute for an
    hour of speech.
    """
    rank = {time: i + 1 for i, time in enumerate(sorted(set(times)))}
    tree: list[tuple[int, int]] = [(0, 0)] * (len(rank) + 1)  # length, and minus where it ends
    before = [-1] * len(times)
    best = (0, 0)
    for at, time in enumerate(times):
        length, last = 0, 0
        i = rank[time]
        while i:
            length, last = max((length, last), tree[i])
            i -= i & -i
        before[at] = -last if length else -1
        entry = (length + 1, -at)
        best = max(best, entry)
        i = rank[time]
        while i < len(tree):
            tree[i] = max(tree[i], entry)
            i += i & -i
    right = [False] * len(times)
    at = -best[1] if times else -1
    while at >= 0:
        right[at] = True
        at = before[at]
    return right
