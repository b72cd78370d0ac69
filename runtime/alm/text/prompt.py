"""A user's words and clips as the model was trained to see them: token ids around the audio."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import groupby
from operator import itemgetter

import numpy as np
from tokenizers import Tokenizer

from alm.errors import BadArtifacts, BadPrompt
from alm.facts import PromptFacts, TokenFacts
from alm.text.heading import Heading
from alm.text.markers import Markers
from alm.text.spoken import Spoken
from alm.text.tasks import MARK as MARK
from alm.text.tasks import check_turn, checked, in_language, interleaved, task, told
from alm.text.thoughts import Thoughts

# In the manifest's templates; a clip has a number in the conversation and one in its turn.
CLIPS, WORDS, NUMBER, TURN_NUMBER = "{clips}", "{}", "{n}", "{k}"
# What a family's original strips of white space: nothing, a user's whole words, each text between
# clips, or the turn's content, where white space beside a clip is inside and stays.
TRIMS = AS_IS, WHOLE, PARTS, CONTENT = "", "words", "parts", "content"


@dataclass(frozen=True)
class Prompt:
    """One turn: token ids before, between and after its clips, so one list more than clips."""

    pieces: list[list[int]]
    joined: bool  # answers to consecutive windows of one recording read on
    language: str = ""  # in which the answer is begun
    begun: bool = False  # it begins what the model thinks
    later: list[int] | None = None  # its last piece once a turn follows; None: as it is
    asked: str = field(default="", compare=False)  # the words, or a task's name


class Prompter:
    """Turns a task's name or free text into the token ids around the audio.

    The manifest's `prompt` sets how: `start` opens a conversation, `turn` holds the clips (unless
    the words mark where they go) and the words, `clip` is what stands around the `placeholder` of a
    clip's embeddings, and `end` closes an answer that another turn follows. A task may have a turn
    of its own in `turns`.

    A user's words are encoded as they are, white space included, but for what the original strips,
    which `trim` names (one of `TRIMS`). A control token that is spelled in them becomes that token,
    as transformers' tokenizers have it; where the manifest sets `literal`, the words are encoded
    apart from the turn and such a spelling stays text, as mistral-common has it. Where it sets
    `apart`, what stands around clips is encoded with the words, as one text.
    """

    def __init__(self, tokenizer: Tokenizer, prompt: PromptFacts, tokens: TokenFacts) -> None:
        self.tokenizer, self.facts = tokenizer, prompt
        self.start, self.end = prompt.start, prompt.end
        self.turn, self.turns = prompt.turn, prompt.turns
        self.clip, self.placeholder = prompt.clip, prompt.placeholder
        self.tasks = prompt.tasks
        self.joined = frozenset(words.strip() for words in prompt.joined)
        self.literal, self.apart, self.trim = prompt.literal, prompt.apart, prompt.trim
        if prompt.heading and prompt.heading.count(WORDS) != 1:
            raise BadArtifacts(
                f"the manifest's prompt heading {prompt.heading!r:.80} wants one {WORDS}"
            )
        if prompt.system and prompt.system.count(WORDS) != 1:
            raise BadArtifacts(
                f"the manifest's prompt system {prompt.system!r:.80} wants one {WORDS}"
            )
        self.heading = Heading(prompt.heading)
        self.thoughts = Thoughts(prompt.thought, prompt.left_out)
        self.spoken, self.markers = Spoken(prompt), Markers(prompt, self._ids)
        self.bos, self.audio = tokens.bos, tokens.audio
        # transformers' `generate` was given ids, so that penalties and n-grams see the prompt.
        self.by_ids = tokens.penalize_prompt
        for turn in (self.turn, *self.turns.values()):
            if turn.count(CLIPS) != 1 or turn.count(WORDS) != 1:
                raise BadArtifacts(
                    f"the manifest's prompt turn {turn!r:.80} wants one {CLIPS} and one {WORDS}"
                )
        if not self.placeholder or self.clip.count(self.placeholder) != 1:
            raise BadArtifacts("the manifest's prompt clip lacks its one placeholder")

    def build(
        self,
        query: str,
        clips: int = 1,
        earlier: int = 0,
        first: bool = True,
        verbatim: bool = False,
        language: str = "",
        system: str = "",
    ) -> Prompt:
        """Token ids of a turn about `clips` clips.

        What stands between two clips is tokenized on its own, as models with audio in the middle
        of a prompt are trained; the BOS token, if any, is put in front of the first turn.

        Args:
            query: a task's name or free text, in which each `<audio>` is the place of a clip; where
                there is none, the clips go where the model's own turn has them.
            clips: how many clips are in this turn.
            earlier: how many were in the turns before it.
            first: whether no turn was before it.
            verbatim: take `query` as text, even where it is a task's name or nearly one.
            language: in which to answer, by its code; "" leaves it to the model.
            system: a message before the conversation; "" is the model's own, if any.

        Raises:
            BadPrompt: empty, no text, it holds the placeholder itself, or marks for more or fewer
                clips; a turn, clip or system message for which this model has no place; no clip
                where one must be.
            UnknownName: one word that is nearly a task's name, or a language that is not known.
        """
        checked(query)
        check_turn(self.facts, query, clips, earlier, first)
        query, named = in_language(query, language, self.facts) if language else (query, "")
        name = None if verbatim else task(query, self.tasks)
        words = query if name is None else self.tasks[name]
        from_user = name is None  # not the manifest's words
        self._check(words, clips, from_user)
        turn = self.turn if name is None else self.turns.get(name, self.turn)
        turn += self.heading.filled(named) if named else ""
        pieces: list[list[int]] = []
        # Texts since the last clip, and which are encoded apart from the others.
        texts = self._opening(system) if first else [(self.end, False)]
        number = 0
        for text, users in self._closed(self._slots(turn, words, clips, from_user)):
            if text is None:
                number += 1
                clip = self.clip.replace(NUMBER, str(earlier + number))
                clip = clip.replace(TURN_NUMBER, str(number))
                before, after = clip.split(self.placeholder)
                pieces.append(self._encoded([*texts, (before, self.apart)]))
                texts = [(after, self.apart)]
            else:
                texts.append((text, users))
        pieces.append(self._encoded(texts))
        later = self._later(texts)
        if first and self.bos is not None:
            pieces[0].insert(0, int(self.bos))
        joined = not self.joined.isdisjoint((words.strip(), WORDS))
        return Prompt(pieces, joined, named, self.thoughts.begun_by(turn), later, query)

    def _opening(self, system: str) -> list[tuple[str, bool]]:
        """What opens a conversation: texts, and which are encoded apart from the others."""
        if not system.strip():
            return [(self.start, False)]
        if not self.facts.system:
            raise BadPrompt(
                "this model's prompt has no place for a system message; say it in the question"
            )
        if self.placeholder in system and not self.literal:
            raise BadPrompt(f"a system message may not hold {self.placeholder}")
        before, said, after = told(self.facts, system)
        return [(before, False), (said, self.literal), (after, False)]

    def ids(self, prompt: Prompt, clips: Sequence[np.ndarray]) -> list[int]:
        """All ids of a turn with clips [n, hidden], a placeholder for each of their embeddings.

        Clips that are tokens [n] themselves stand as they are.
        Only models that are `by_ids` have a placeholder that is one token, or three of which the
        second is repeated, or name a token for it.
        """
        held = self._ids(self.placeholder) if self.audio is None else [self.audio]
        ids = list(prompt.pieces[0])
        for clip, piece in zip(clips, prompt.pieces[1:], strict=True):
            if clip.ndim == 1:
                ids += clip.tolist()
            elif len(held) == 3:
                ids += [held[0], *held[1:2] * (len(clip) - 2), held[2]]
            else:
                ids += self.markers.ids(len(clip), held[:1])
            ids += piece
        return ids

    def said(self, text: str) -> list[int]:
        """Ids of an answer's text as it stands in later turns."""
        return self._encoded([(text, self.literal)])

    def _later(self, texts: Sequence[tuple[str, bool]]) -> list[int] | None:
        """The last piece of a turn, of these texts, as it stands once another turn follows."""
        fleeting, (end, apart) = self.facts.fleeting, texts[-1]
        if not fleeting or not end.endswith(fleeting):
            return None
        return self._encoded([*texts[:-1], (end.removesuffix(fleeting), apart)])

    def _check(self, words: str, clips: int, from_user: bool) -> None:
        marks = words.count(MARK)
        empty = not words.replace(MARK, "").strip()
        if from_user and empty and (marks == 0 or not clips):
            raise BadPrompt(f"the prompt is empty; say what to do, or one of: {self._names()}")
        literal = from_user and self.literal
        if not literal and self.placeholder in words.replace(MARK, ""):
            raise BadPrompt(f"the prompt may not hold {self.placeholder}, the audio's own place")
        if marks and marks != clips:
            raise BadPrompt(
                f"the prompt has places for {marks} clips ({MARK}), and {clips} are given"
            )

    def _slots(
        self, turn: str, words: str, clips: int, from_user: bool
    ) -> Iterator[tuple[str | None, bool]]:
        """The turn's texts in their order and whether they are encoded apart; None is a clip."""
        content = interleaved(words.strip() if self.trim == WHOLE else words)
        marked = len(content) > 1
        placed = clips > 0 and not marked  # clips stand where the turn has them
        if from_user:
            content = _trimmed_beside(content, self.trim, turn if placed else "")
        joint = _JOINT.search(turn)
        if joint and not placed:
            turn = turn.replace(joint[0], WORDS + CLIPS)
        for piece in re.split(f"({re.escape(CLIPS)}|{re.escape(WORDS)})", turn):
            if piece == CLIPS:
                yield from [(None, False)] * (0 if marked else clips)
            elif piece == WORDS:
                before: str | None = ""
                for text in content:
                    # A clip that ends in a space needs no second one.
                    spaced = text is not None and before is None and self.clip.endswith(" ")
                    text = text.removeprefix(" ") if spaced and text else text
                    yield text, self.apart or (from_user and self.literal)
                    before = text
            else:
                yield piece, False

    def _closed(self, slots: Iterable[tuple[str | None, bool]]) -> list[tuple[str | None, bool]]:
        """The slots with what stands behind a clip that no words follow; the last is the turn's."""
        *content, end = slots
        last = next((text for text, _ in reversed(content) if text != ""), "")
        return [*content, *([(self.facts.clip_last, False)] if last is None else []), end]

    def _encoded(self, texts: Iterable[tuple[str, bool]]) -> list[int]:
        """Ids of texts, those that are encoded apart and the others each joined."""
        ids: list[int] = []
        for users, group in groupby(texts, key=itemgetter(1)):
            text = "".join(text for text, _ in group)
            ids += self._literal_ids(text) if users and self.literal else self._ids(text)
        return ids

    def _ids(self, text: str) -> list[int]:
        return self.tokenizer.encode(text, add_special_tokens=False).ids if text else []

    def _literal_ids(self, text: str) -> list[int]:
        """Ids of a text whose spelled control tokens stay text."""
        spelled = any(token in text for token in self._controls)
        tokenizer = self._plain_tokenizer if spelled else self.tokenizer
        return tokenizer.encode(text, add_special_tokens=False).ids

    @cached_property
    def _controls(self) -> list[str]:
        added = self.tokenizer.get_added_tokens_decoder().values()
        return [token.content for token in added if token.special]

    @cached_property
    def _plain_tokenizer(self) -> Tokenizer:
        # A copy: the switch cannot be thrown while another thread uses the tokenizer.
        copied = Tokenizer.from_str(self.tokenizer.to_str())
        copied.encode_special_tokens = True
        return copied

    def _names(self) -> str:
        return ", ".join(sorted(self.tasks))


_JOINT = re.compile(re.escape(WORDS) + r"\s+" + re.escape(CLIPS))  # words, and clips behind them


def _trimmed_beside(content: list[str | None], how: str, turn: str) -> list[str | None]:
    """A user's texts and clips as `trimmed`, beside the clips that the turn has next to them."""
    before = CLIPS + WORDS in turn
    behind = WORDS + CLIPS in turn or bool(_JOINT.search(turn))
    items = trimmed([*[None] * before, *content, *[None] * behind], how)
    return items[before : len(items) - behind]


def trimmed(content: Sequence[str | None], how: str) -> list[str | None]:
    """A turn's texts, None where a clip is, without the white space that `how` (of TRIMS) names."""
    items = list(content)
    if how == PARTS:
        return [text and text.strip() for text in items]
    texts = [i for i, text in enumerate(items) if text is not None]
    if how == WHOLE and texts:
        ends = texts[0], texts[-1]
    else:
        ends = (0, len(items) - 1) if how == CONTENT and items else (-1, -1)
    if ends[0] >= 0 and (first := items[ends[0]]) is not None:
        items[ends[0]] = first.lstrip()
    if ends[1] >= 0 and (last := items[ends[1]]) is not None:
        items[ends[1]] = last.rstrip()
    return items
