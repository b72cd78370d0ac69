"""What the demo's answers are judged by."""

from __future__ import annotations

import pytest

from bench.quality import circles, hard, judged, no_worse
from demo.compose import WINDOW_SECONDS
from demo.phrases import SOUNDS
from demo.voices import RATE


def test_words_are_counted_by_clip_and_captions_are_right_or_not() -> None:
    spoken = judged("voices", ["turn on the lamp", "four two"], ["turn the lamp", "42"])
    assert spoken.wrong == [1, 0] and spoken.words == 6 and spoken.said == 5
    assert spoken.percent == pytest.approx(100 / 6, abs=0.01) and spoken.cider is None
    named = [*SOUNDS.values()]
    whole = judged("captions", named, named)
    assert whole.percent == 0 and whole.cider == pytest.approx(10, abs=3)
    some = judged("captions", named, [*named[1:], named[0]])
    assert some.percent == 100 and some.cider is not None and whole.cider is not None
    assert some.cider < 0.2 * whole.cider


def test_an_answer_is_no_worse_or_goes_in_circles() -> None:
    first = {"voices": judged("voices", ["a b", "c d", "e f"], ["a b", "x d", "e f"])}
    other = {"voices": judged("voices", ["a b", "c d", "e f"], ["a b", "c d", "y z"])}
    assert no_worse(first, first) == 100 and no_worse(first, other) == pytest.approx(66.67)
    assert circles("on the lamp on the lamp on the lamp") and not circles("on the lamp " * 2)
    assert not circles("")


def test_hard_sounds_follow_from_the_seed_and_fit_the_window() -> None:
    clips = hard(12, 3)
    assert all((a.pcm == b.pcm).all() for a, b in zip(clips, hard(12, 3), strict=True))
    for clip in clips:
        assert 0.5 * RATE <= len(clip.pcm) < WINDOW_SECONDS * RATE and abs(clip.pcm).max() <= 0.5
        assert clip.sound in SOUNDS and not clip.words
