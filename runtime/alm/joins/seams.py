"""Texts of windows that overlap, joined so that no word is there twice."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

# A word, or a character of a script that is written without spaces.
ALONE = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af"
WORD = re.compile(rf"[{ALONE}]|[^\s{ALONE}]+")
MOST = 24  # words on each side of a seam in which a common run is sought
STRAY = 1  # words beside a run of one word: further away it is chance


def seam(before: str, after: str) -> tuple[str, str]:
    """Both texts without what they have in common, and without the words that the cuts broke.

    The longest run of words that ends the one and begins the other is kept once, at the end of the
    first text. What is behind it there, and before it in the second, is half a word that a cut
    left, or what a model made of it. Without such a run both texts are given as they are.
    """
    left, right = list(WORD.finditer(before))[-MOST:], list(WORD.finditer(after))[:MOST]
    run = _longest([_plain(word[0]) for word in left], [_plain(word[0]) for word in right])
    if run is None:
        return before, after
    at, begin, length = run
    return before[: left[at + length - 1].end()], after[right[begin + length - 1].end() :].lstrip()


def joined(texts: Sequence[str], overlaps: Sequence[bool]) -> list[str]:
    """The texts of windows, where `overlaps` says which share sound with the one before."""
    made = list(texts)
    for i in range(1, len(made)):
        if overlaps[i] and made[i - 1].strip() and made[i].strip():
            made[i - 1], made[i] = seam(made[i - 1], made[i])
    return made


def _longest(left: list[str], right: list[str]) -> tuple[int, int, int] | None:
    """(place in left, place in right, length) of the best common run, None where there is none."""
    best, found = (0, 0), None
    above = [0] * (len(right) + 1)
    for i, word in enumerate(left, 1):
        row = [0] * (len(right) + 1)
        for j, other in enumerate(right, 1):
            if not word or word != other:
                continue
            row[j] = length = above[j - 1] + 1
            stray = len(left) - i + j - length  # words that are dropped
            near = len(left) - i <= STRAY and j - length <= STRAY
            if (length > 1 or near) and (length, -stray) > best:
                best, found = (length, -stray), (i - length, j - length, length)
        above = row
    return found


def _plain(word: str) -> str:
    """A word as it is compared: without case and punctuation."""
    folded = unicodedata.normalize("NFKC", word).casefold()
    return "".join(sign for sign in folded if sign.isalnum())
