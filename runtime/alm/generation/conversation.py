"""A conversation: the KV cache is kept between turns, and only what is new is computed."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Any, TypeVar

from alm.audio import reader
from alm.errors import BadOption
from alm.generation import keywords
from alm.generation.answers import Answer
from alm.generation.drafts import Drafting
from alm.generation.keywords import InputOptions
from alm.generation.parts import Parts
from alm.generation.past import Past
from alm.generation.telling import tell
from alm.generation.turn import Question, Turn
from alm.grammar import forms
from alm.timings import Times

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from alm.generation.keywords import Asking

T = TypeVar("T")


class Conversation:
    """Turns about any number of clips; made by `Model.chat`.

    A turn that fails changes nothing: the conversation goes on after the one before it.

    A conversation is one line of turns. Threads may share one: their turns are answered one after
    the other, in the order in which `ask` gets hold of it, and each sees all turns before it. For
    conversations side by side make one for each; the Model may be shared by all.
    """

    def __init__(
        self,
        parts: Parts,
        inputs: InputOptions,
        options: Mapping[str, Any],
        drafting: Drafting | None = None,
    ) -> None:
        forms.asked(inputs.forms, 0)
        parts.options(options)  # what contradicts itself is refused before any audio is read
        reader.check_options(parts.rules.rate, "first", inputs.max_audio_seconds)
        self._parts, self._inputs, self._options = parts, inputs, options
        self._drafting = drafting
        self._adapter = parts.adapters.find(inputs.adapter)
        self._past = Past(parts, self._adapter)
        self._turn = threading.Lock()
        self._asking: int | None = None  # the thread whose turn it is

    @property
    def turns(self) -> int:
        """How many were answered."""
        return self._past.turns

    def ask(
        self,
        prompt: str,
        *sources: reader.Source,
        on_text: Callable[[str], None] | None = None,
        **options: Unpack[Asking],
    ) -> Answer:
        """Answer the next turn; it waits until another thread's turn is answered.

        Args:
            prompt: free text or a task's name; each `<audio>` in it is the place of a clip.
            sources: clips that are new in this turn, as `Model.generate` takes them; may be none.
            on_text: called with pieces of text as they become certain.
            options: fields of `alm.Options` in the place of the conversation's, and `schema`,
                `grammar` or `regex` of this answer.

        Returns:
            The answer; its `prompt_tokens` are those of the whole conversation before it, of which
            `cached_tokens` were not computed again.

        Raises:
            BadAudio, MissingFile, BadPrompt, BadOption: one sentence says what is wrong, such as a
                question that `on_text` asks while its own turn is still being answered.
        """
        questions = [Question(prompt, sources)]
        return finish(self.turn(questions, options, on_text is not None, remember=True), on_text)[0]

    def tell(self, prompt: str, *sources: reader.Source, answer: str) -> None:
        """Go on as if the next turn had been answered so; nothing is generated.

        Args:
            prompt, sources: as `ask` takes them.
            answer: the text of the answer.

        Raises:
            BadAudio, MissingFile, BadPrompt, BadOption: as `ask`.
        """
        if self._asking == threading.get_ident():
            raise BadOption("this turn is still being answered; ask the next one after it")
        with self._turn:
            how = self._inputs, Times(), False, None, self._adapter
            turn = Turn(self._parts, self._parts.options(self._options), *how)
            tell(turn, Question(prompt, sources), answer, self._past)

    @property
    def bytes(self) -> int:
        """What is kept in memory for the next turn."""
        return self._past.bytes

    def turn(
        self,
        questions: Sequence[Question],
        options: Mapping[str, Any] | None = None,
        listening: bool = False,
        *,
        remember: bool = False,
        times: Times | None = None,
    ) -> Generator[str, None, list[Answer]]:
        """What `ask` and a model's `generate` and `stream` run: text as it comes, then answers.

        Nothing is done before the first piece is asked for. Whoever closes it ends the turn, and
        the conversation is as if it had not been asked.

        Args:
            questions: one, or any number that are not remembered, each of a row of its own.
            options: in the place of the conversation's.
            listening: yield pieces of text, of the one question.
            remember: the next turn goes on from this one. Otherwise every row begins anew, and a
                long clip is answered window by window.
            times: counts what is done; made here if there is none.
        """
        if "adapter" in (options or {}):
            raise BadOption("a conversation keeps the adapter that it began with; begin another")
        if self._asking == threading.get_ident():
            raise BadOption("this turn is still being answered; ask the next one after it")
        with self._turn:
            self._asking = threading.get_ident()
            try:
                inputs, given = keywords.shaped(self._inputs, options or {})
                chosen = self._parts.options({**self._options, **given})
                how = inputs, times or Times(), listening, self._drafting, self._adapter
                turn = Turn(self._parts, chosen, *how)
                return (yield from turn.answers(questions, self._past if remember else None))
            finally:
                self._asking = None


def finish(turn: Generator[str, None, T], on_text: Callable[[str], None] | None = None) -> T:
    """Run a turn to its end, and give what it gives; its pieces of text go to `on_text`."""
    with closing(turn):
        while True:
            try:
                piece = next(turn)
            except StopIteration as end:
                return end.value
            if on_text:
                on_text(piece)
