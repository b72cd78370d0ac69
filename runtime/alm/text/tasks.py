"""A task by its name, and what a word that is nearly one may have meant."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from alm.errors import BadPrompt, UnknownName
from alm.facts import PromptFacts

MARK = "<audio>"  # in a user's words: here stands the next clip
NEAR = 0.8  # difflib's ratio: one wrong, lost or added letter in a word of five is near


def near(name: str, known: Iterable[str], most: int = 1) -> list[str]:
    """The names that `name` is likely to be a slip of, the nearest first."""
    from difflib import get_close_matches

    spelled = {other.lower(): other for other in known}
    return [spelled[lower] for lower in get_close_matches(name.lower(), spelled, most, NEAR)]


def task(query: str, tasks: Mapping[str, str]) -> str | None:
    """The task that `query` names, white space around the name aside; None for free text.

    Raises:
        UnknownName: it is one word and nearly a task's name, or a task that there is in several
            languages only (`translate`, where there are `translate_de` and `translate_en`).
    """
    name = query.strip()
    if name in tasks:
        return name
    if not name.replace("_", "").replace("-", "").isalnum():  # `music?` is a question
        return None
    meant = sorted(other for other in tasks if other.startswith(f"{name.lower()}_"))
    meant = meant or near(name, tasks)
    if meant:
        raise UnknownName(
            f"there is no task {name!r:.80}; did you mean {either(meant)}? "
            "To ask just that word, add --verbatim (in Python verbatim=True)"
        )
    return None


def transcribes(asked: str, prompt: PromptFacts, verbatim: bool = False) -> bool:
    """Whether what is asked is the task `transcribe`, by its name or in its words.

    So are its kin by language (`transcribe_de`), and anything that is asked of a model whose
    answers are transcripts whatever the words.
    """
    words, name = asked.strip(), "transcribe"
    tasks = {t: w for t, w in prompt.tasks.items() if t == name or t.startswith(f"{name}_")}
    by_name = not verbatim and words in tasks
    return by_name or words in {text.strip() for text in tasks.values()} or "{}" in prompt.joined


def in_language(query: str, language: str, prompt: PromptFacts) -> tuple[str, str]:
    """What asks for an answer in a language: the words, and the language's name in the heading.

    Where answers have a heading it is begun with the name, whatever the words; elsewhere there are
    tasks of several languages: `translate`, `de` -> `translate_de`.

    Raises:
        UnknownName: there is no such task or language; the message lists those there are.
    """
    name, code, tasks = query.strip(), language.strip().lower(), prompt.tasks
    if prompt.languages:
        spelled = {n.lower(): n for n in prompt.languages.values()} | prompt.languages
        if code not in spelled:
            raise UnknownName(
                f"this model knows no language {language!r:.40}; there is: "
                + ", ".join(sorted(prompt.languages))
            )
        return query, spelled[code]
    if f"{name}_{code}" in tasks:
        return f"{name}_{code}", ""
    there = sorted(
        other.removeprefix(f"{name}_") for other in tasks if other.startswith(f"{name}_")
    )
    if name and there:
        raise UnknownName(
            f"{name} knows no language {language!r:.40}; there is: {', '.join(there)}"
        )
    raise UnknownName(
        f"--language is for a task that there is in several languages, and {name!r:.80} is none "
        "in this model; --list-tasks shows them"
    )


def either(names: list[str]) -> str:
    """`a`, `a or b`, `a, b or c`."""
    return " or ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def checked(query: object) -> str:
    """The prompt, which must be text that can be written as UTF-8.

    Raises:
        BadPrompt: it is not.
    """
    if not isinstance(query, str):
        raise BadPrompt(f"the prompt is wanted as text, not {type(query).__name__}")
    try:
        query.encode("utf-8")
    except UnicodeEncodeError:  # Python's stand-ins for bytes that it could not decode
        raise BadPrompt(
            "the prompt holds bytes that are not UTF-8; type it again where text is UTF-8"
        ) from None
    return query


def check_turn(facts: PromptFacts, words: str, clips: int, earlier: int, first: bool) -> None:
    """Refuse, with BadPrompt, what a model that takes one turn or one clip does not take."""
    if (facts.single or facts.one_turn) and not first:
        raise BadPrompt("this model answers one turn; begin a new conversation")
    if clips > 1 and (facts.single or facts.one_clip) or not clips and facts.single:
        raise BadPrompt(f"this model hears one clip at a time, and {clips} are given; ask of each")
    if clips and earlier and facts.one_clip:
        raise BadPrompt("this model hears one clip in a conversation; begin a new one for another")
    if facts.clip_first and first and not clips:
        raise BadPrompt(
            "this model's weights are those for sound, and without a clip the original answers "
            "with others; give one with the first question"
        )
    if MARK in words and (facts.single or facts.one_clip):
        raise BadPrompt(f"this model has its own place for the clip; leave out the {MARK}")


def interleaved(words: str) -> list[str | None]:
    """The words' texts with None where a mark stands between them."""
    first, *rest = words.split(MARK)
    return [first, *(item for text in rest for item in (None, text))]


def told(facts: PromptFacts, system: str) -> tuple[str, str, str]:
    """What opens a conversation with a system message: before it, the message, and behind it."""
    before, after = facts.system.split("{}")
    return before, system.strip() if facts.system_trimmed else system, after
