"""A folder's chat template as a start, turns and an end, which a device can write without Jinja.

The template is a program of a stranger: `jinja` renders it apart. What is made of it is proved: a
set of conversations is written both ways, and a template that writes anything else is refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from alm.errors import BadCheckpoint
from alm.facts import PromptFacts
from alm.text.prompt import TRIMS
from alm.text.thoughts import LEFT_OUT
from wrappers.checkpoint.text import rendering, systems, thoughts
from wrappers.checkpoint.text.conversations import (
    ANSWER,
    CLIP_FORMS,
    CLIPS,
    FIRST,
    NUMBER,
    SECOND,
    WORDS,
    Conversation,
    Form,
    common_end,
    difference,
    messages_of,
    numbered,
    proof,
    shown,
    user,
    written,
)
from wrappers.checkpoint.text.template_files import source_in, variables_of

MOST_SOURCE = 2**18  # characters of a template; the longest that are published have a tenth


@dataclass(frozen=True)
class Template:
    """A Jinja template with the variables that it may use; `where` is its file.

    `spelled`: it is an LLM's own, which knows no clips. A message is a text, and a clip the
    placeholder in it.
    """

    source: str
    variables: Mapping[str, str]
    where: str
    spelled: bool = False

    def prompt(self, placeholder: str, *, asks: bool = False) -> PromptFacts:
        """`start`, `turn`, `clip`, `end` and, if need be, `trim` of the model's prompt, proved.

        Args:
            placeholder: what the template writes for a clip.
            asks: the template has a request of its own where a user says none (`request`), so that
                turns without words are not compared.

        Raises:
            BadCheckpoint: the template cannot be rendered, or not be written so; the message
                names the conversation and what differs.
        """
        if len(self.source) > MOST_SOURCE:
            raise BadCheckpoint(
                f"{self.where} holds a chat template of {len(self.source)} characters"
            )
        form = self._form(placeholder)
        facts = self._factored(form, placeholder)
        conversations = [
            each
            for each in proof()
            if not asks or all(any(piece for piece in turn) for turn in each)
        ]
        wanted = self._rendered(conversations, form)
        wrong: list[tuple[int, str]] = []  # how many conversations were equal, and the first not
        for trim in TRIMS:
            tried = replace(facts, trim=trim)
            got = [written(tried, conversation) for conversation in conversations]
            odd = [i for i, pair in enumerate(zip(got, wanted, strict=True)) if pair[0] != pair[1]]
            if not odd:
                return systems.proved(self._thinking(tried, form), form, self._texts)
            at = odd[0]
            reason = f"for {shown(conversations[at])} {difference(wanted[at], got[at])}"
            wrong.append((len(conversations) - len(odd), reason))
        raise self._refusal(max(wrong, key=lambda entry: entry[0])[1])

    def _thinking(self, facts: PromptFacts, form: Form) -> PromptFacts:
        """The facts with what the template does with thoughts, where it knows any, proved."""
        if not (marks := thoughts.in_template(self.source)):
            return facts
        asked = thoughts.examples(replace(facts, thought=marks))
        wanted = self._rendered([turns for turns, _ in asked], form, [said for _, said in asked])
        reasons: list[str] = []
        for left_out in (*LEFT_OUT, ""):
            tried = replace(facts, thought=marks, left_out=left_out)
            got = [written(tried, *each) for each in asked]
            odd = [i for i, pair in enumerate(zip(got, wanted, strict=True)) if pair[0] != pair[1]]
            if not odd:
                return tried
            differs = difference(wanted[odd[0]], got[odd[0]])
            reasons.append(f"after the answer {asked[odd[0]][1][0]!r} {differs}")
        raise self._refusal(reasons[0])

    def request(self, prompt: PromptFacts) -> str:
        """The words that the template writes where a user gives a clip and says nothing.

        Raises:
            BadCheckpoint: it cannot be rendered, or writes the clip otherwise than `prompt`.
        """
        wordless: Conversation = ((None,),)
        got = self._rendered([wordless], self._form(prompt.placeholder))[0]
        before, _, after = written(prompt, ((None, FIRST),)).partition(FIRST)
        if not got.startswith(before) or not got[len(before) :].endswith(after):
            raise self._refusal(
                f"for {shown(wordless)} {difference(got, before + after)}, which is its own"
            )
        return got[len(before) : len(got) - len(after)]

    def check(
        self, wanted: Sequence[tuple[list[dict[str, Any]], str]], *, asks: bool = True
    ) -> None:
        """That messages are written as these texts; if it `asks`, up to where an answer begins.

        Raises:
            BadCheckpoint: the template cannot be rendered, or writes one of them otherwise.
        """
        results = self._run(
            [{"messages": messages, "add_generation_prompt": asks} for messages, _ in wanted]
        )
        for (messages, text), result in zip(wanted, results, strict=True):
            got = result.get("text")
            if got != text:
                reason = result.get("error") if got is None else difference(got, text)
                raise BadCheckpoint(
                    f"{self.where}: its chat template is not the one that is known of this family: "
                    f"for {str(messages)[:200]} {reason}"
                )

    def _form(self, placeholder: str) -> Form:
        """How this template wants a clip to be described."""
        if self.spelled:
            return placeholder
        reason = f"it writes no {placeholder} for a clip"
        conversation: Conversation = ((None, FIRST),)
        for form in CLIP_FORMS:
            results = self._run(
                [{"messages": messages_of(conversation, form), "add_generation_prompt": True}]
            )
            if placeholder in results[0].get("text", ""):
                return form
            reason = results[0].get("error", reason)
        raise BadCheckpoint(f"{self.where}: its chat template takes no clip: {reason}")

    def _factored(self, form: Form, placeholder: str) -> PromptFacts:
        one, two, bare, talk = self._rendered(
            [
                ((None, FIRST),),
                ((None, None, FIRST),),
                ((FIRST,),),
                ((FIRST,), (SECOND,)),
            ],
            form,
        )
        opening, tail = self._around(bare, FIRST)
        before, rest = self._around(talk, FIRST)
        closed, between = self._around(rest, ANSWER)
        between, last = self._around(between, SECOND)
        fleeting = tail.removeprefix(closed) if thoughts.BEGIN in tail else ""
        if (before, closed + fleeting, last) != (opening, tail, tail):
            raise self._refusal("a turn is not written alike first and last")
        end = self._closing(form)
        if not between.startswith(end) or not opening.endswith(between[len(end) :]):
            end = between[: len(between) - common_end(opening, between)]
        head = between[len(end) :]
        first = self._around(one, FIRST)[0].removeprefix(opening)
        second = self._around(two, FIRST)[0].removeprefix(opening + first)
        facts = PromptFacts(
            start=opening[: len(opening) - len(head)],
            turn=f"{head}{CLIPS}{WORDS}{tail}",
            clip=numbered(first, second),
            placeholder=placeholder,
            end=end,
            fleeting=fleeting,
        )
        texts = (facts.start, head, tail, first, end)
        if odd := [text for text in texts if any(p in text for p in (CLIPS, WORDS, NUMBER))]:
            raise self._refusal(f"{odd[0]!r:.80} holds a place of our own")
        if facts.clip.count(placeholder) != 1:
            raise self._refusal(f"a clip is {facts.clip!r:.80}, without one {placeholder}")
        return facts

    def _closing(self, form: Form) -> str:
        """What follows an answer that nothing follows; "" where a template does not write it."""
        messages = [user((FIRST,), form), {"role": "assistant", "content": ANSWER}]
        result = self._run([{"messages": messages, "add_generation_prompt": False}])[0]
        return result.get("text", "").rpartition(ANSWER)[2]

    def _around(self, text: str, words: str) -> tuple[str, str]:
        """What is before and after the words, which must be there once."""
        if text.count(words) != 1:
            raise self._refusal(f"it writes {words!r} {text.count(words)} times")
        before, _, after = text.partition(words)
        return before, after

    def _rendered(
        self,
        conversations: Sequence[Conversation],
        form: Form,
        said: Sequence[Sequence[str]] | None = None,
    ) -> list[str]:
        """The conversations as the template writes them, up to where an answer begins.

        `said` are the answers of each, if they are not all ANSWER.
        """
        pairs = zip(conversations, said or [()] * len(conversations), strict=True)
        dialogues = [messages_of(turns, form, answers) for turns, answers in pairs]
        asked = [{"messages": messages, "add_generation_prompt": True} for messages in dialogues]
        results = self._run(asked)
        for conversation, result in zip(conversations, results, strict=True):
            if "text" not in result:
                raise BadCheckpoint(
                    f"{self.where}: its chat template cannot be rendered for "
                    f"{shown(conversation)}: {result.get('error', '')}"
                )
        return [result["text"] for result in results]

    def _texts(self, dialogues: Sequence[list[dict[str, Any]]]) -> list[str]:
        """The messages as the template writes them; "" where it refuses them."""
        asked = [{"messages": messages, "add_generation_prompt": True} for messages in dialogues]
        return [result.get("text", "") for result in self._run(asked)]

    def _run(self, conversations: list[dict[str, Any]]) -> list[dict[str, str]]:
        given = [{"tools": None, "documents": None} | c for c in conversations]
        return rendering.run(self.source, self.variables, given, self.where)

    def _refusal(self, reason: str) -> BadCheckpoint:
        return BadCheckpoint(
            f"{self.where}: its chat template is no start, turns and an end that are alike: "
            f"{reason}"
        )


def template(folder: Path, placeholder: str, default: str = "") -> Template | None:
    """The folder's template where transformers' processors look for it, else `default`.

    The tokenizer's own is the last resort, and only if it knows clips.

    Raises:
        BadCheckpoint: a file that should hold one is damaged.
    """
    if own := _own_file(folder):
        return own
    variables = variables_of(folder)
    for name in ("chat_template.json", "processor_config.json"):
        source = source_in(folder / name)
        if source:
            return Template(source, variables, str(folder / name))
    source = source_in(folder / "tokenizer_config.json")
    if source and placeholder in source:
        return Template(source, variables, str(folder / "tokenizer_config.json"))
    return Template(default, variables, str(folder)) if default else None


def of_tokenizer(folder: Path) -> Template | None:
    """The template of the folder's tokenizer, in which clips are spelled.

    Raises:
        BadCheckpoint: a file that should hold one is damaged.
    """
    if own := _own_file(folder):
        return replace(own, spelled=True)
    file = folder / "tokenizer_config.json"
    source = source_in(file)
    return Template(source, variables_of(folder), str(file), spelled=True) if source else None


def _own_file(folder: Path) -> Template | None:
    """The template that is a file of its own."""
    plain = folder / "chat_template.jinja"
    if not plain.is_file():
        return None
    try:
        return Template(plain.read_text("utf-8"), variables_of(folder), str(plain))
    except UnicodeDecodeError as error:
        raise BadCheckpoint(f"{plain} is no text: {error}") from error
