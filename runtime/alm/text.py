"""Text on both sides of the model: the prompt into token ids, token ids into text as they come."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from alm.errors import BadArtifacts, BadPrompt

REPLACEMENT = "\ufffd"  # what a tokenizer decodes half a character to


def load_tokenizer(path: Path) -> Tokenizer:
    """Read a tokenizer.json.

    Raises:
        BadArtifacts: it is none.
    """
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # tokenizers raises plain Exception
        raise BadArtifacts(f"{path} is no tokenizer.json: {error}") from error


@dataclass(frozen=True)
class Prompt:
    """A prompt with the audio's place in it: token ids before the audio and after it."""

    before: list[int]
    after: list[int]
    joined: bool  # answers to consecutive windows of one recording read on


class Prompter:
    """Turns a task's name or free text into the token ids around the audio."""

    def __init__(
        self, tokenizer: Tokenizer, prompt: Mapping[str, Any], tokens: Mapping[str, Any]
    ) -> None:
        self.tokenizer = tokenizer
        self.template: str = prompt["template"]
        self.placeholder: str = prompt["placeholder"]
        self.tasks: dict[str, str] = prompt["tasks"]
        self.joined = frozenset(prompt.get("joined", ()))
        self.bos = tokens.get("bos")
        if self.template.count(self.placeholder) != 1 or self.template.count("{}") != 1:
            raise BadArtifacts("the manifest's prompt template lacks its one placeholder or its {}")

    def build(self, query: str) -> Prompt:
        """Token ids of the template with `query` (a task's name, or free text) in its place.

        Both halves are tokenized on their own and without special tokens, as models with audio
        in the middle of a prompt are trained; the BOS token is put in front when there is one.

        Raises:
            BadPrompt: empty, or it holds the placeholder itself.
        """
        text = self.tasks.get(query, query).strip()
        if not text:
            raise BadPrompt(f"the prompt is empty; say what to do, or one of: {self._names()}")
        if self.placeholder in text:
            raise BadPrompt(f"the prompt may not hold {self.placeholder}, the audio's own place")
        before, after = self.template.split(self.placeholder)
        start = [] if self.bos is None else [int(self.bos)]
        return Prompt(
            before=start + self._ids(before.replace("{}", text)),
            after=self._ids(after.replace("{}", text)),
            joined=text in self.joined,
        )

    def _ids(self, text: str) -> list[int]:
        return self.tokenizer.encode(text, add_special_tokens=False).ids

    def _names(self) -> str:
        return ", ".join(sorted(self.tasks))


class TextStream:
    """Token ids of one row into text: never half a character, never past a stop string."""

    def __init__(self, tokenizer: Tokenizer, stop_strings: Sequence[str] = ()) -> None:
        self.tokenizer = tokenizer
        self.stop_strings = [stop for stop in stop_strings if stop]
        self.ids: list[int] = []
        self.stopped = False
        self._sent = ""

    def push(self, token: int) -> str:
        """The text that this token makes certain; "" while a character or stop string is open."""
        self.ids.append(token)
        text = self._text()
        return self._send(text if self.stopped else text[: self._certain(text)])

    def finish(self) -> str:
        """What was held back to the end."""
        return self._send(self._text())

    @property
    def text(self) -> str:
        """All of the text so far, cut at the first stop string."""
        return self._text()

    def _text(self) -> str:
        text = self.tokenizer.decode(self.ids, skip_special_tokens=True)
        cuts = [at for stop in self.stop_strings if (at := text.find(stop)) >= 0]
        self.stopped = bool(cuts)
        return text[: min(cuts)] if cuts else text

    def _certain(self, text: str) -> int:
        """How much of `text` no further token can change."""
        end = len(text.rstrip(REPLACEMENT))
        for stop in self.stop_strings:
            for size in range(min(len(stop) - 1, end), 0, -1):
                if text.endswith(stop[:size], 0, end):
                    end -= size
                    break
        return end

    def _send(self, text: str) -> str:
        # A decoder that rewrites what it said (cleaning up spaces) is followed at the end only.
        if not text.startswith(self._sent):
            return ""
        new, self._sent = text[len(self._sent) :], text
        return new


class Joiner:
    """Pieces of several texts as they come: sent on, they are those texts, stripped and joined."""

    def __init__(self, send: Callable[[str], None], separator: str) -> None:
        self.send, self.separator = send, separator
        self._gap = ""  # goes out before what follows, if anything does
        self._begun = self._sent = False  # this text; any text

    def push(self, piece: str) -> None:
        """Send a piece, but for whitespace at its end, which waits, or at the text's beginning."""
        piece = piece if self._begun else piece.lstrip()
        if body := piece.rstrip():
            self.send(self._gap + body)
            self._gap, self._begun, self._sent = "", True, True
        self._gap += piece[len(body) :]

    def end(self) -> None:
        """What follows belongs to the next text."""
        self._gap = self.separator if self._sent else ""
        self._begun = False


def stop_text(tokenizer: Tokenizer, ids: Sequence[int], stop_strings: Sequence[str]) -> TextStream:
    """A stream that has seen all of `ids` at once."""
    stream = TextStream(tokenizer, stop_strings)
    stream.ids = list(ids)
    _ = stream.text
    return stream
