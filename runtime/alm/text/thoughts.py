"""What a model thinks before it answers, told apart from the answer: `<think>...</think>`."""

from __future__ import annotations

from dataclasses import dataclass

from alm.errors import BadArtifacts

THOUGHT = "{}"  # its place in the manifest's `thought`
# What a template leaves out of a turn before the last: all up to the thought's last end and, behind
# it, nothing, line ends, white space, or white space at both ends of the answer.
REST, LINES, SPACES, WORDS = LEFT_OUT = "rest", "lines", "spaces", "words"


@dataclass(frozen=True)
class Thoughts:
    """A template such as `<think>{}</think>`; an empty one is of a model that marks no thoughts."""

    template: str = ""
    left_out: str = ""  # of LEFT_OUT; "": later turns have answers whole

    def __post_init__(self) -> None:
        before, place, after = self.template.partition(THOUGHT)
        if self.template and (not before or not place or not after or THOUGHT in after):
            raise BadArtifacts(
                f"the manifest's prompt thought {self.template!r:.80} wants one {THOUGHT} between "
                "two texts"
            )

    @property
    def before(self) -> str:
        """What begins a thought."""
        return self.template.partition(THOUGHT)[0]

    @property
    def after(self) -> str:
        """What ends a thought."""
        return self.template.partition(THOUGHT)[2]

    def begun_by(self, turn: str) -> bool:
        """Whether the end of a turn has begun the thought, so that the model's text need not."""
        return bool(self.before) and turn.rstrip().endswith(self.before)

    def split(self, text: str, begun: bool) -> tuple[str | None, str]:
        """The thought and the answer of a model's text.

        Args:
            begun: the prompt has begun the thought.

        Returns:
            None as the thought where the model marks none, "" where there is none in this text. A
            thought that does not end is all of the text.
        """
        if not self.template:
            return None, text
        stripped = text.lstrip()
        if stripped.startswith(self.before):
            text = stripped.removeprefix(self.before)
        elif not begun:
            return "", text
        thought, _, answer = text.partition(self.after)
        return thought, answer

    def later(self, text: str) -> str | None:
        """A model's text as later turns have it; None: as it is."""
        if not self.left_out or not self.after or self.after not in text:
            return None
        rest = text.rpartition(self.after)[2]
        left = {LINES: rest.lstrip("\n"), SPACES: rest.lstrip(), WORDS: rest.strip()}
        return left.get(self.left_out, rest)


class ThoughtStream:
    """Pieces of a model's text as they come, its thought and its answer apart."""

    def __init__(self, thoughts: Thoughts, begun: bool) -> None:
        self.before, self.after, self.begun = thoughts.before, thoughts.after, begun
        self._held = ""
        self._unsure = bool(thoughts.template)  # whether a thought may still begin
        self._inside = False

    def push(self, piece: str) -> tuple[str, str]:
        """What is certain of the thought, its marks in it, and of the answer."""
        if not self._unsure and not self._inside:
            return "", piece
        self._held += piece
        shown = ""
        if self._unsure:
            stripped = self._held.lstrip()
            if self.before.startswith(stripped):
                return "", ""
            self._unsure = False
            if stripped.startswith(self.before):
                self._held = stripped.removeprefix(self.before)
            elif not self.begun:
                return "", self._let_go()
            self._inside, shown = True, self.before
        thought, ended, rest = self._held.partition(self.after)
        if ended:
            self._held, self._inside = "", False
            return shown + thought + self.after, rest
        size = self._may_end(self._held)
        sure, self._held = (
            self._held[: len(self._held) - size],
            self._held[len(self._held) - size :],
        )
        return shown + sure, ""

    def finish(self) -> tuple[str, str]:
        """What was held back to the end."""
        unsure, self._unsure = self._unsure, False
        held = self._let_go()
        if not unsure:
            return (held, "") if self._inside else ("", held)
        if held.lstrip() == self.before:
            return self.before, ""
        return (self.before + held, "") if self.begun else ("", held)

    def _let_go(self) -> str:
        held, self._held = self._held, ""
        return held

    def _may_end(self, text: str) -> int:
        """How many characters at the end of a thought may belong to what ends it."""
        sizes = range(min(len(self.after) - 1, len(text)), 0, -1)
        return next((size for size in sizes if text.endswith(self.after[:size])), 0)
