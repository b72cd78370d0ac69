"""Token ids into text as they come, up to where an answer ends."""

from __future__ import annotations

from collections.abc import Sequence
from os.path import commonprefix
from pathlib import Path
from typing import cast

from tokenizers import Tokenizer

from alm.errors import BadArtifacts
from alm.text.rust import Guarded, calm

MOST_BYTES = 256 * 2**20  # of a tokenizer.json; those of the largest vocabularies have 35
REPLACEMENT = "\ufffd"  # what a tokenizer decodes half a character to


def load_tokenizer(path: Path, content: bytes | None = None) -> Tokenizer:
    """Read a tokenizer.json and try it.

    Args:
        path: the file, for the messages; it is read where there is no content.
        content: its bytes, where they are read and verified already.

    Returns:
        What encodes and decodes as a Tokenizer does. Where that would end in a panic of Rust, which
        is no Exception, it raises BadArtifacts.

    Raises:
        BadArtifacts: it is none, or its parts do not fit together.
    """
    if content is None:
        try:
            content = path.read_bytes()
        except OSError as error:
            raise BadArtifacts(f"{path} cannot be read: {error.strerror or error}") from error
    with calm(f"{path} is no tokenizer.json"):
        tokenizer = Tokenizer.from_buffer(content)
    return cast(Tokenizer, Guarded(tokenizer, str(path)))


class TextStream:
    """Token ids of one row into text: never half a character, never past a stop string.

    A token costs the decoding of the few before it, not of all: what `push` gives is cut from a
    window that begins at a place where the text is whole. The pieces joined are the decoded text.
    """

    def __init__(self, tokenizer: Tokenizer, stop_strings: Sequence[str] = ()) -> None:
        self.tokenizer = tokenizer
        self.stop_strings = [stop for stop in stop_strings if stop]
        self.ids: list[int] = []
        self.stopped = False
        self._settled = ""  # the text of ids[:_until], which no further token changes
        self._from = self._until = 0  # ids[_from:_until] are the window's known beginning,
        self._known = 0  # so many characters of what the window decodes to
        self._sent = 0  # characters
        self._byte = tokenizer.token_to_id("<0xFF>")  # byte fallback: never part of a character

    def push(self, token: int) -> str:
        """The text that this token makes certain; "" while a character or stop string is open."""
        self.ids.append(token)
        if self.stopped:
            return ""
        window = self.ids[self._from :]
        fresh = self._decode(window)[self._known :]
        text = self._settled + fresh
        longest = max(map(len, self.stop_strings), default=1)
        cut = _first(text, self.stop_strings, max(0, len(self._settled) - longest + 1))
        if cut >= 0:
            self.stopped = True
            return self._send(text[:cut])
        whole = self._whole(window, fresh)
        if fresh and whole == len(fresh):
            self._settle(text)
        return self._send(text[: self._before_stops(text, len(text) - len(fresh) + whole)])

    def finish(self) -> str:
        """What was held back to the end."""
        return self._send(self.text)

    @property
    def text(self) -> str:
        """All of the text so far, cut at the first stop string."""
        text = self._decode(self.ids)
        cut = _first(text, self.stop_strings)
        return text if cut < 0 else text[:cut]

    def _decode(self, ids: Sequence[int]) -> str:
        return self.tokenizer.decode(ids, skip_special_tokens=True)

    def _whole(self, window: list[int], fresh: str) -> int:
        """How many characters of `fresh`, the end of the window's text, are sure to stay."""
        end = len(fresh.rstrip(REPLACEMENT))
        if self._byte is not None and end:
            # With byte fallback a bad byte spoils the whole run of bytes that it ends.
            spoiled = self._decode([*window, self._byte])[self._known :]
            end = len(commonprefix([fresh[:end], spoiled]))
        return end

    def _settle(self, text: str) -> None:
        start, self._until = self._until, len(self.ids)
        self._settled = text
        # A decoder strips the space that a text begins with: only after some text has it done so.
        known = self._decode(self.ids[start:])
        if known:
            self._from, self._known = start, len(known)
        else:
            self._known = len(self._decode(self.ids[self._from :]))

    def _before_stops(self, text: str, end: int) -> int:
        """`end`, or where before it a stop string may have begun."""
        held = 0
        for stop in self.stop_strings:
            sizes = range(min(len(stop) - 1, end), held, -1)
            held = next((size for size in sizes if text.endswith(stop[:size], 0, end)), held)
        return end - held

    def _send(self, text: str) -> str:
        # What was sent stays: a decoder that rewrites it is only followed from there on.
        new = text[self._sent :]
        self._sent += len(new)
        return new


class Stops:
    """Checks whether the last token of a growing row completes a stop string."""

    def __init__(self, tokenizer: Tokenizer, stop_strings: Sequence[str]) -> None:
        self.tokenizer = tokenizer
        self.strings = [stop for stop in stop_strings if stop]
        self._ends = {stop[-1] for stop in self.strings} | {REPLACEMENT}
        self._may_end: dict[int, bool] = {}

    def also(self, more: Sequence[str]) -> Stops:
        """These and more."""
        return Stops(self.tokenizer, (*self.strings, *more)) if more else self

    def reached(self, ids: Sequence[int]) -> bool:
        """Whether the text of `ids` holds a stop string; that of ids[:-1] must not.

        Few tokens hold the last character of a stop string, or a part of any character (which a
        byte of byte fallback always may): only after those is the text decoded.
        """
        if not self.strings:
            return False
        token = ids[-1]
        if token not in self._may_end:
            # Often, since what a token gives at the beginning may lack its spaces.
            often = self._text([token] * 8)
            byte = (self.tokenizer.id_to_token(token) or "").startswith("<0x")
            self._may_end[token] = byte or not self._ends.isdisjoint(often)
        return self._may_end[token] and _first(self._text(ids), self.strings) >= 0

    def cut(self, ids: Sequence[int]) -> str:
        """The text of `ids` up to the first stop string."""
        text = self._text(ids)
        at = _first(text, self.strings)
        return text if at < 0 else text[:at]

    def before(self, ids: list[int]) -> list[int]:
        """As many of `ids` as have no part in a stop string."""
        whole = self.cut(ids) if self.strings else ""
        while self.strings and len(self._text(ids)) > len(whole):
            ids = ids[:-1]
        return ids

    def _text(self, ids: Sequence[int]) -> str:
        return self.tokenizer.decode(ids, skip_special_tokens=True)


def _first(text: str, stop_strings: Sequence[str], start: int = 0) -> int:
    """Where the first stop string begins at or after `start`; -1 when there is none."""
    return min((at for s in stop_strings if (at := text.find(s, start)) >= 0), default=-1)


class Joiner:
    """Pieces of several texts as they come: what it gives, joined, are those texts stripped."""

    def __init__(self, separator: str) -> None:
        self.separator = separator
        self._gap = ""  # goes out before what follows, if anything does
        self._begun = self._sent = False  # this text; any text

    def push(self, piece: str) -> str:
        """What may go out: no whitespace at a text's beginning, and at its end it waits."""
        piece = piece if self._begun else piece.lstrip()
        body = piece.rstrip()
        out = self._gap + body if body else ""
        if body:
            self._gap, self._begun, self._sent = "", True, True
        self._gap += piece[len(body) :]
        return out

    def end(self) -> None:
        """What follows belongs to the next text."""
        self._gap = self.separator if self._sent else ""
        self._begun = False
