"""A user's words and clips as the model was trained to see them: token ids around the audio."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from alm.errors import BadArtifacts, BadPrompt

MARK = "<audio>"  # in a user's words: here stands the next clip
CLIPS, WORDS, NUMBER = "{clips}", "{}", "{n}"  # in the manifest's templates


@dataclass(frozen=True)
class Prompt:
    """One turn: token ids before, between and after its clips, so one list more than clips."""

    pieces: list[list[int]]
    joined: bool  # answers to consecutive windows of one recording read on


class Prompter:
    """Turns a task's name or free text into the token ids around the audio.

    The manifest's `prompt` says how: `start` opens a conversation, `turn` holds the clips (unless
    the words say where they go) and the words, `clip` is what stands around the `placeholder` of a
    clip's embeddings, and `end` closes an answer that another turn follows. A task may have a turn
    of its own in `turns`.
    """

    def __init__(
        self, tokenizer: Tokenizer, prompt: Mapping[str, Any], tokens: Mapping[str, Any]
    ) -> None:
        self.tokenizer = tokenizer
        self.start: str = prompt.get("start", "")
        self.end: str = prompt.get("end", "")
        self.turn: str = prompt["turn"]
        self.turns: dict[str, str] = prompt.get("turns", {})
        self.clip: str = prompt["clip"]
        self.placeholder: str = prompt["placeholder"]
        self.tasks: dict[str, str] = prompt["tasks"]
        self.joined = frozenset(each.strip() for each in prompt.get("joined", ()))
        self.bos = tokens.get("bos")
        # transformers' `generate` was given ids, so that penalties and n-grams see the prompt.
        self.by_ids: bool = tokens.get("penalize_prompt", False)
        for turn in (self.turn, *self.turns.values()):
            if turn.count(CLIPS) != 1 or turn.count(WORDS) != 1:
                raise BadArtifacts(
                    f"the manifest's prompt turn {turn!r:.80} wants one {CLIPS} and one {WORDS}"
                )
        if not self.placeholder or self.clip.count(self.placeholder) != 1:
            raise BadArtifacts("the manifest's prompt clip lacks its one placeholder")

    def build(self, query: str, clips: int = 1, heard: int = 0, first: bool = True) -> Prompt:
        """Token ids of a turn about `clips` clips.

        What stands between two clips is tokenized on its own and without special tokens, as models
        with audio in the middle of a prompt are trained; the BOS token is put in front of the
        first turn when there is one.

        Args:
            query: a task's name or free text, in which each `<audio>` is the place of a clip; where
                there is none, the clips go where the model's own turn has them.
            clips: how many clips are in this turn.
            heard: how many were in the turns before it.
            first: whether no turn was before it.

        Raises:
            BadPrompt: empty, it holds the placeholder itself, or marks for more or fewer clips.
        """
        words = self.tasks.get(query, query).strip()
        self._check(words, clips)
        turn = self.turns.get(query, self.turn)
        texts = [self.start if first else self.end]
        number = heard
        for text in self._slots(turn, words, clips):
            if text is not None:
                texts[-1] += text
                continue
            number += 1
            before, after = self.clip.replace(NUMBER, str(number)).split(self.placeholder)
            texts[-1] += before
            texts.append(after)
        pieces = [self._ids(text) for text in texts]
        if first and self.bos is not None:
            pieces[0].insert(0, int(self.bos))
        return Prompt(pieces, words in self.joined)

    def ids(self, prompt: Prompt, clips: Sequence[np.ndarray]) -> list[int]:
        """All ids of a turn with clips [n, hidden], a placeholder for each of their embeddings.

        Only models that are `by_ids` have a placeholder that is one token.
        """
        held = self._ids(self.placeholder)[:1]
        made = list(prompt.pieces[0])
        for clip, piece in zip(clips, prompt.pieces[1:], strict=True):
            made += held * len(clip) + list(piece)
        return made

    def _check(self, words: str, clips: int) -> None:
        marks = words.count(MARK)
        if not words.replace(MARK, "").strip() and (marks == 0 or not clips):
            raise BadPrompt(f"the prompt is empty; say what to do, or one of: {self._names()}")
        if self.placeholder in words.replace(MARK, ""):
            raise BadPrompt(f"the prompt may not hold {self.placeholder}, the audio's own place")
        if marks and marks != clips:
            raise BadPrompt(
                f"the prompt has places for {marks} clips ({MARK}), and {clips} are given"
            )

    def _slots(self, turn: str, words: str, clips: int) -> Iterator[str | None]:
        """The turn's texts in their order, None where a clip goes."""
        marked = words.split(MARK)
        for each in re.split(f"({re.escape(CLIPS)}|{re.escape(WORDS)})", turn):
            if each == CLIPS:
                yield from [None] * (clips if len(marked) == 1 else 0)
            elif each == WORDS:
                yield marked[0]
                for text in marked[1:]:
                    yield None
                    # A clip that ends in a space needs no second one.
                    yield text.removeprefix(" ") if self.clip.endswith(" ") else text
            else:
                yield each

    def _ids(self, text: str) -> list[int]:
        return self.tokenizer.encode(text, add_special_tokens=False).ids

    def _names(self) -> str:
        return ", ".join(sorted(self.tasks))
