"""What a model writes before its answer's words: the language that it heard."""

from __future__ import annotations

LANGUAGE = "{}"  # its place in the manifest's `heading`
MOST = 48  # characters of a language's name; what is longer is no heading
UNKNOWN = "None"  # written where nothing is spoken


class Heading:
    """A template such as `language {}<asr_text>`; an empty one is no heading at all."""

    def __init__(self, template: str) -> None:
        self.before, self.after = template.split(LANGUAGE) if template else ("", "")

    def filled(self, language: str) -> str:
        """The heading of an answer in this language."""
        return self.before + language + self.after

    def split(self, text: str) -> tuple[str, str]:
        """The language, "" where it is not said, and the words behind the heading."""
        if not self.after:
            return "", text
        stripped = text.lstrip()
        at = stripped.find(self.after, len(self.before), len(self.before) + MOST + len(self.after))
        if at < 0 or not stripped.startswith(self.before):
            return "", text
        language = stripped[len(self.before) : at].strip()
        return "" if language == UNKNOWN else language, stripped[at + len(self.after) :]

    def may_follow(self, text: str) -> bool:
        """Whether the heading that `text` begins with may not be whole yet."""
        if not self.after:
            return False
        stripped = text.lstrip()
        begun = stripped.startswith(self.before[: len(stripped)])
        short = len(stripped) < len(self.before) + MOST + len(self.after)
        return begun and short and self.after not in stripped


class WordsStream:
    """Pieces of an answer as they come, without its heading."""

    def __init__(self, heading: Heading) -> None:
        self.heading = heading
        self._held = ""
        self._open = True  # whether a heading may still come

    def push(self, piece: str) -> str:
        """What of the words is certain; "" while the heading may not be whole."""
        if not self._open:
            return piece
        self._held += piece
        return "" if self.heading.may_follow(self._held) else self.finish()

    def finish(self) -> str:
        """What was held back to the end."""
        held, self._held, self._open = self._held, "", False
        return self.heading.split(held)[1]
