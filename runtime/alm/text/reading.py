"""A model's text taken apart: what it thought, the language that it named, the answer's words."""

from __future__ import annotations

from typing import NamedTuple

from alm.text.detokenizer import TextStream
from alm.text.heading import WordsStream
from alm.text.prompt import Prompt, Prompter
from alm.text.thoughts import ThoughtStream


class Reading(NamedTuple):
    """A model's text, taken apart."""

    thinking: str | None  # None: the model marks no thoughts
    language: str  # "": it named none
    words: str


def read(text: str, prompter: Prompter, prompt: Prompt) -> Reading:
    """What a model's text, an answer to this prompt, consists of."""
    thinking, answer = prompter.thoughts.split(text, prompt.begun)
    return Reading(thinking, *prompter.heading.split(answer))


class ReadingStream:
    """The tokens of one row as text that a reader wants: the answer's words, as they are certain.

    With `thinking` the thought comes before them, between its marks.
    """

    def __init__(
        self, text: TextStream, prompter: Prompter, prompt: Prompt, thinking: bool
    ) -> None:
        self.thinking, self._text = thinking, text
        self._thoughts = ThoughtStream(prompter.thoughts, prompt.begun)
        self._words = WordsStream(prompter.heading)

    def push(self, token: int) -> str:
        """The text that this token makes certain."""
        return self._read(*self._thoughts.push(self._text.push(token)))

    def finish(self, text: str | None = None) -> str:
        """What was held back to the end; or of a whole text, of which no token was pushed."""
        rest = self._text.finish() if text is None else text
        read = self._read(*self._thoughts.push(rest)) + self._read(*self._thoughts.finish())
        return read + self._words.finish()

    def _read(self, thought: str, answer: str) -> str:
        return (thought if self.thinking else "") + self._words.push(answer)
