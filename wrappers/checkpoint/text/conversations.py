"""Conversations that prove a chat template: what is asked of it, and what a manifest writes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from alm.facts import PromptFacts
from alm.text.prompt import CLIPS, NUMBER, WORDS, trimmed
from alm.text.thoughts import Thoughts

FIRST, ANSWER, SECOND = "a first question", "some answer", "the second question"

Turn = tuple[str | None, ...]  # a user's texts and clips in their order; None is a clip
Conversation = tuple[Turn, ...]
# How a clip is described; or, as text, what stands for it in a content that is one text.
Form = Mapping[str, str] | str
# As templates want it; transformers itself takes the first.
CLIP_FORMS: tuple[dict[str, str], ...] = (
    {"type": "audio", "audio": "clip.wav", "audio_url": "clip.wav"},
    {"type": "audio_url", "audio_url": "clip.wav"},
    {"type": "input_audio", "input_audio": "clip.wav"},
)

TURNS: tuple[Turn, ...] = (
    ("What is that?",),
    (None, "What do\nyou  hear?"),
    (None, None, "Which is louder?"),
    (None, None, None, "In what order?"),
    ("Listen: ", None, " And now?"),
    ("First ", None, ", then ", None),
    (None,),
)
# What shows whether a template strips white space, and of what.
SPACED: tuple[Turn, ...] = (
    ("  What is that? \n",),
    (None, " What do you hear?\n"),
    (" Listen: \n", None, "\n And now?  "),
    (None, " First? ", None, " Second? "),
    ("Is it this:\n", None),
)


def written(prompt: PromptFacts, conversation: Conversation, answers: Sequence[str] = ()) -> str:
    """The conversation as the manifest's prompt writes it, every answer being ANSWER.

    Args:
        answers: what a model wrote, turn by turn, in the place of ANSWER.
    """
    text, number = prompt.start, 0
    thoughts = Thoughts(prompt.thought, prompt.left_out)
    for i, turn in enumerate(conversation):
        words = ""
        for piece in trimmed(turn, prompt.trim):
            number += piece is None
            words += prompt.clip.replace(NUMBER, str(number)) if piece is None else piece
        if i:
            answer = answers[i - 1] if answers else ANSWER
            later = thoughts.later(answer)
            text = text.removesuffix(prompt.fleeting) + (answer if later is None else later)
            text += prompt.end
        text += prompt.turn.replace(CLIPS, "").replace(WORDS, words)
    return text


def proof() -> Iterator[Conversation]:
    """One to three turns with none to three clips at several places, and a dozen clips."""
    yield from ((turn,) for turn in TURNS)
    yield from ((one, two) for one in TURNS for two in TURNS)
    for i, turn in enumerate(TURNS):
        yield turn, TURNS[(i + 3) % len(TURNS)], TURNS[(i + 1) % len(TURNS)]
    yield (TURNS[3],) * 4
    yield from ((turn,) for turn in SPACED)
    yield from ((TURNS[1], turn) for turn in SPACED)


def messages_of(
    conversation: Conversation, form: Form, answers: Sequence[str] = ()
) -> list[dict[str, Any]]:
    """The conversation as transformers' templates take it, an answer after every turn but one.

    Args:
        answers: in the place of ANSWER.
    """
    messages: list[dict[str, Any]] = []
    for i, turn in enumerate(conversation):
        if i:
            text = answers[i - 1] if answers else ANSWER
            messages.append({"role": "assistant", "content": text})
        messages.append(user(turn, form))
    return messages


def user(turn: Turn, form: Form) -> dict[str, Any]:
    if isinstance(form, str):
        text = "".join(form if piece is None else piece for piece in turn)
        return {"role": "user", "content": text}
    content = [form if piece is None else {"type": "text", "text": piece} for piece in turn]
    return {"role": "user", "content": content}


def numbered(first: str, second: str) -> str:
    """The first two clips of a conversation -> the text of any, {n} where they count."""
    if len(first) != len(second):
        return first
    pairs = zip(first, second, strict=True)
    return "".join(NUMBER if pair == ("1", "2") else pair[0] for pair in pairs)


def common_end(one: str, two: str) -> int:
    """How many characters at their ends two texts share."""
    most = min(len(one), len(two))
    return next((i for i in range(most) if one[-1 - i] != two[-1 - i]), most)


def shown(conversation: Conversation) -> str:
    """`<clip>What is that?` of a conversation, for messages."""
    turns = ("".join(p if p is not None else "<clip>" for p in turn) for turn in conversation)
    return repr(" / ".join(turns))


def difference(wanted: str, got: str) -> str:
    """What two texts hold where they part."""
    same = next(
        (i for i, (a, b) in enumerate(zip(wanted, got, strict=False)) if a != b),
        min(len(wanted), len(got)),
    )
    at = max(0, same - 10)
    return f"it writes {wanted[at : same + 30]!r} and not {got[at : same + 30]!r}"
