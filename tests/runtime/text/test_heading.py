"""What stands before an answer's words is cut off, in a whole text as in pieces of it."""

from __future__ import annotations

import pytest

from alm.text.heading import Heading, WordsStream

HEADING = Heading("language {}<asr_text>")
CASES = {
    "language English<asr_text>Hello there": ("English", "Hello there"),
    " language English<asr_text> Hello": ("English", " Hello"),
    "language None<asr_text>": ("", ""),
    "language <asr_text>Hello": ("", "Hello"),
    "language English": ("", "language English"),
    "languages are fun<asr_text>": ("", "languages are fun<asr_text>"),
    "Hello<asr_text>": ("", "Hello<asr_text>"),
    "language " + 60 * "x" + "<asr_text>a": ("", "language " + 60 * "x" + "<asr_text>a"),
    "": ("", ""),
    "lang": ("", "lang"),
}


@pytest.mark.parametrize("text", CASES)
def test_the_language_and_the_words_are_told_apart(text: str) -> None:
    assert HEADING.split(text) == CASES[text]


@pytest.mark.parametrize("text", CASES)
@pytest.mark.parametrize("size", [1, 3, 100])
def test_pieces_joined_are_the_words(text: str, size: int) -> None:
    stream = WordsStream(HEADING)
    pieces = [stream.push(text[i : i + size]) for i in range(0, len(text), size)]
    assert "".join(pieces) + stream.finish() == CASES[text][1]


def test_words_come_as_soon_as_no_heading_can() -> None:
    stream = WordsStream(HEADING)
    assert [stream.push(piece) for piece in ("lan", "d", " ho!")] == ["", "land", " ho!"]
    stream = WordsStream(HEADING)
    given = ("language ", "Dutch<asr", "_text>", "Ja", " nee")
    assert [stream.push(piece) for piece in given] == ["", "", "", "Ja", " nee"]


def test_without_a_heading_everything_is_words() -> None:
    none = Heading("")
    assert none.split("language x<asr_text>a") == ("", "language x<asr_text>a")
    assert WordsStream(none).push("language ") == "language "
