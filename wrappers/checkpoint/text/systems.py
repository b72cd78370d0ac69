"""Where a chat template writes a system message, found and proved."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from alm.facts import PromptFacts
from alm.text.prompt import CLIPS, NUMBER, WORDS
from alm.text.tasks import told
from wrappers.checkpoint.text.conversations import FIRST, TURNS, Form, messages_of, written

SAID = "Answer like a pirate."
# What shows whether a template changes the text: white space, lines, a quote.
TEXTS = (SAID, "  Two\n lines. \n", 'Names: "Łukasz", Anna.')

Render = Callable[[Sequence[list[dict[str, Any]]]], list[str]]


def proved(facts: PromptFacts, form: Form, render: Render) -> PromptFacts:
    """The facts with the place of a system message; as they are where the template has none.

    Args:
        facts: those of conversations without one, proved.
        form: how the template wants a clip to be described.
        render: messages -> what the template writes, "" where it refuses them.
    """
    head = facts.turn.partition(CLIPS)[0]
    for plain in (True, False):  # as a text, or as a list of parts
        opening, _, rest = render([_messages(SAID, ((FIRST,),), form, plain)])[0].partition(FIRST)
        if opening.count(SAID) != 1 or not opening.endswith(head) or not rest:
            continue
        system = opening[: len(opening) - len(head)].replace(SAID, WORDS)
        if system.count(WORDS) != 1 or any(place in system for place in (CLIPS, NUMBER)):
            continue
        for trimmed in (False, True):
            tried = replace(facts, system=system, system_trimmed=trimmed)
            if _holds(tried, form, plain, render):
                return tried
    return facts


def _holds(facts: PromptFacts, form: Form, plain: bool, render: Render) -> bool:
    """Whether the template writes conversations with system messages so."""
    talks = [(turn,) for turn in TURNS] + [(TURNS[1], turn) for turn in TURNS[:3]]
    # A turn without words may have some of the template's own.
    talks = [talk for talk in talks if all(any(piece for piece in turn) for turn in talk)]
    cases = [(text, talk) for text in TEXTS for talk in talks]
    got = render([_messages(text, talk, form, plain) for text, talk in cases])
    return all(
        written(replace(facts, start="".join(told(facts, text))), talk) == made
        for (text, talk), made in zip(cases, got, strict=True)
    )


def _messages(text: str, talk: Any, form: Form, plain: bool) -> list[dict[str, Any]]:
    content = text if plain else [{"type": "text", "text": text}]
    return [{"role": "system", "content": content}, *messages_of(talk, form)]
