"""Texts of windows that overlap become one text, without a word lost or doubled."""

from __future__ import annotations

import pytest

from alm.joins.seams import joined, seam

LIGHT = "go left and turn on the light please"


@pytest.mark.parametrize(
    ("before", "after", "whole"),
    [
        ("go left and turn on the", "turn on the light please", LIGHT),
        ("go left and turn on the li", "urn on the light please", LIGHT),
        ("Go left, and Turn On", "turn on. The light", "Go left, and Turn On The light"),
        ("one two three four", "three four five", "one two three four five"),
        ("one one one two", "one two one three", "one one one two one three"),
        ("open the door", "door now", "open the door now"),
        ("今天天气很好", "气很好我们走吧", "今天天气很好 我们走吧"),
        ("nothing in common", "with this here", "nothing in common with this here"),
        ("the first of all words", "and then the end", "the first of all words and then the end"),
        ("", "alone", "alone"),
    ],
)
def test_what_both_say_is_said_once(before: str, after: str, whole: str) -> None:
    assert " ".join(filter(None, seam(before, after))).strip() == whole


def test_of_several_windows_only_those_that_overlap_are_touched() -> None:
    texts = ["a b c d", "c d e f", "e f g", "", "g h"]
    assert joined(texts, [False, True, False, True, True]) == ["a b c d", "e f", "e f g", "", "g h"]
