"""A text as the words that an aligner times, each with its place in the text."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass

IDEOGRAPHS = (  # first and last of each block of Han characters
    *((0x4E00, 0x9FFF), (0x3400, 0x4DBF), (0x20000, 0x2A6DF), (0x2A700, 0x2B73F)),
    *((0x2B740, 0x2B81F), (0x2B820, 0x2CEAF), (0xF900, 0xFAFF), (0x2F800, 0x2FA1F)),
)


@dataclass(frozen=True)
class Place:
    """A word as the aligner reads it, and where in the text it stands."""

    word: str
    start: int  # the text's characters from here
    end: int  # to here, what the word leaves out included


def split(text: str) -> list[Place]:
    """The words of a text: letters, numbers and apostrophes between white space, Han one by one.

    As transformers' processor splits for Qwen3's aligner, but for Japanese and Korean, of which it
    asks a morphological analyser: there a word is what stands between spaces and Han characters.
    """
    places: list[Place] = []
    word, start, end = "", 0, 0

    def flush() -> None:
        nonlocal word
        if word:
            places.append(Place(word, start, end))
        word = ""

    for at, char in enumerate(text):
        if _is_ideograph(char):
            flush()
            places.append(Place(char, at, at + 1))
        elif char.isspace():
            flush()
        elif char == "'" or unicodedata.category(char)[0] in "LN":
            start = start if word else at
            word, end = word + char, at + 1
    flush()
    return places


def _is_ideograph(char: str) -> bool:
    return any(first <= ord(char) <= last for first, last in IDEOGRAPHS)
