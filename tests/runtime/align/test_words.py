"""Words and times as transformers' processor has them, on any text and any labels."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator

import numpy as np
import pytest
from transformers.models.qwen3_asr import processing_qwen3_asr as original

from alm.align import sentences
from alm.align.times import in_order
from alm.align.words import split
from alm.text.segments import Segment, Word, srt, vtt

Split = original.Qwen3ASRProcessor.split_words_for_alignment
PIECES = [*"ab'.,-5三四é ßñ’\n\t—", "\u0301", "\U00020000", "한", "か"]


def texts(count: int) -> Iterator[str]:
    """Texts of the pieces above, and of any characters."""
    noise = random.Random(0)
    for i in range(count):
        size = noise.randrange(12)
        any_char = [chr(noise.randrange(1, 0xD800)) for _ in range(size)]
        yield "".join(any_char if i % 4 == 0 else noise.choices(PIECES, k=size))


def test_words_are_the_originals() -> None:
    for text in texts(2000):
        places = split(text)
        assert [place.word for place in places] == Split(None, text)  # pyright: ignore
        for place in places:
            kept = [c for c in text[place.start : place.end] if c in place.word]
            assert "".join(kept) == place.word and kept[0] == text[place.start]
        ends = [end for place in places for end in (place.start, place.end)]
        assert ends == sorted(ends)


def test_times_are_put_in_order_as_the_original_does() -> None:
    noise = random.Random(0)
    for i in range(3000):
        steps = [noise.randrange(12) + j * (i % 3) for j in range(1 + i % 40)]
        times = [80.0 * step for step in steps]
        got = in_order(times)
        assert got == original._fix_timestamps(np.array(times))
        assert got == sorted(got)


def test_an_hour_of_words_takes_no_minute() -> None:
    noise = random.Random(0)
    times = [80.0 * max(0, i + noise.randrange(-20, 20)) for i in range(20_000)]
    since = time.process_time()
    assert len(in_order(times)) == 20_000
    assert time.process_time() - since < 10  # every pair would be 200 million


def timed(text: str, *spoken: tuple[float, float]) -> list[Segment]:
    places = split(text)
    words = [
        Word(text[place.start : place.end], *when)
        for place, when in zip(places, spoken, strict=True)
    ]
    return sentences.segments(text, list(zip(places, words, strict=True)))


def test_segments_are_sentences_with_their_signs() -> None:
    made = timed("«Hello, you. How are you?", (0, 1), (1, 1.5), (2, 2.2), (2.2, 2.4), (2.4, 3))
    assert [(s.start, s.end, s.text) for s in made] == [
        (0, 1.5, "«Hello, you."),
        (2, 3, "How are you?"),
    ]
    assert [word.text for word in made[1].words] == ["How", "are", "you"]


@pytest.mark.parametrize(
    "text, spoken, parts",
    [
        ("a b c", [(0, 1), (1, 6), (6, 7.5)], ["a b", "c"]),  # more than 7 s
        ("a b", [(0, 1), (3, 4)], ["a", "b"]),  # a pause
        (f"{'x' * 50} {'y' * 50}", [(0, 1), (1, 2)], ["x" * 50, "y" * 50]),  # two lines
        ("3.5 b", [(0, 1), (1, 2)], ["3.5 b"]),  # no sentence's end
    ],
)
def test_long_sentences_are_parted(
    text: str, spoken: list[tuple[float, float]], parts: list[str]
) -> None:
    assert [segment.text for segment in timed(text, *spoken)] == parts


def test_no_words_are_no_segments() -> None:
    assert timed("...") == []


def test_subtitles_have_the_forms_that_players_read() -> None:
    made = [Segment(0, 1.5, "a <b> & c"), Segment(3661.0004, 3662.9996, "two\n\nlines --> here")]
    assert srt(made) == (
        "1\n00:00:00,000 --> 00:00:01,500\na <b> & c\n\n"
        "2\n01:01:01,000 --> 01:01:03,000\ntwo\nlines --> here\n"
    )
    assert vtt(made) == (
        "WEBVTT\n\n00:00:00.000 --> 00:00:01.500\na &lt;b&gt; &amp; c\n"
        "\n01:01:01.000 --> 01:01:03.000\ntwo\nlines --&gt; here\n"
    )
    assert (srt([]), vtt([])) == ("", "WEBVTT\n")
