"""Marks of what a model thinks before it answers, as a checkpoint's files have them."""

from __future__ import annotations

import json
from typing import Any

from alm.facts import PromptFacts
from alm.text.thoughts import THOUGHT, Thoughts
from wrappers.checkpoint.text.conversations import ANSWER, FIRST, SECOND, Conversation

BEGIN, END = "<think>", "</think>"  # of DeepSeek-R1, Qwen3, SmolLM3 and what is made of them
MARKS = BEGIN + THOUGHT + END


def in_template(source: str) -> str:
    """The manifest's `thought` of a chat template that tells thoughts from answers, else ""."""
    return MARKS if END in source else ""


def in_tokenizer(tokenizer_json: str) -> str:
    """The manifest's `thought` of a tokenizer that has a token for each of the marks, else ""."""
    return MARKS if _marks(json.loads(tokenizer_json)) else ""


def spelled(tokenizer_json: str, thought: str) -> str:
    """The tokenizer with marks that are part of the text which it makes of tokens.

    Where they are special tokens they would be left out, and the thought not be told from the
    answer. The tokens of a text are the same.
    """
    if not thought:
        return tokenizer_json
    plain = json.loads(tokenizer_json)
    marks = _marks(plain)
    if not any(token.get("special") for token in marks):
        return tokenizer_json
    for token in marks:
        token["special"] = False
    return json.dumps(plain)


def _marks(tokenizer: dict[str, Any]) -> list[dict[str, Any]]:
    """The tokens of a tokenizer.json that are marks; none unless both are there."""
    added = tokenizer.get("added_tokens") or []
    marks = [t for t in added if isinstance(t, dict) and t.get("content") in (BEGIN, END)]
    return marks if {BEGIN, END} <= {mark["content"] for mark in marks} else []


def examples(prompt: PromptFacts) -> list[tuple[Conversation, tuple[str, ...]]]:
    """Conversations, with a model's answers, by which a template shows what it leaves out."""
    own = "" if Thoughts(prompt.thought).begun_by(prompt.turn) else BEGIN
    said = (
        f"{own}\nIt is loud.\n{END}\n\n {ANSWER} \n",
        f"{own}one{END} two {END}\n{ANSWER}",
        f"{own}without its end",
        ANSWER,
    )
    two: Conversation = ((FIRST,), (SECOND,))
    return [*((two, (text,)) for text in said), ((*two, (FIRST,)), said[:2])]
