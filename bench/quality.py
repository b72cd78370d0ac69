"""How answers of the demo model are judged: errors, captions, and what got worse."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from demo import phrases, sounds
from demo.compose import SOUND_NAMES, Clip
from exporters.answering import circling

CAPTIONED = ("captions", "hard")  # kinds of clips that are described; others are transcribed
GRAM = 3  # words of which an answer that goes in circles is made


@dataclass(frozen=True)
class Judged:
    """Answers to the clips of a kind."""

    wrong: list[int]  # of each clip: word errors; of a caption 1 where it is not the right one
    words: int  # in all that is right
    said: int  # words in the answers
    circling: int  # answers that go in circles
    cider: float | None  # CIDEr-D of captions, from 0 to 10

    @property
    def percent(self) -> float:
        """Word errors by 100 words, or captions that are not right by 100."""
        whole = self.words if self.cider is None else len(self.wrong)
        return round(100 * sum(self.wrong) / whole, 2)


@dataclass(frozen=True)
class Row:
    """One line of the table; errors in percent by kind of clip."""

    precision: str
    bytes: int
    errors: dict[str, float]
    seconds_a_clip: float
    cider: dict[str, float]  # CIDEr-D of captions
    no_worse: float  # percent of clips whose answer has no more errors than torch's
    length: float  # words of all answers, as a share of torch's
    circling: float  # percent of answers in which three words come three times
    peak_mb: float  # the most memory of a process that answers, in 10^6 bytes


def judged(kind: str, right: Sequence[str], said: Sequence[str]) -> Judged:
    """Answers against what is right, both as Whisper's English normaliser writes them."""
    import jiwer

    right, said = [normal(text) for text in right], [normal(text) for text in said]
    if kind in CAPTIONED:
        wrong = [int(a != b) for a, b in zip(right, said, strict=True)]
    else:
        counted = [jiwer.process_words(a, b) for a, b in zip(right, said, strict=True)]
        wrong = [each.substitutions + each.deletions + each.insertions for each in counted]
    return Judged(
        wrong,
        sum(len(text.split()) for text in right),
        sum(len(text.split()) for text in said),
        sum(map(circles, said)),
        cider_d(right, said) if kind in CAPTIONED else None,
    )


def cider_d(right: Sequence[str], said: Sequence[str]) -> float:
    """CIDEr-D (Vedantam et al. 2015) as coco-caption computes it, one reference a clip.

    Words are weighted by how few of the references have them.
    """
    from pycocoevalcap.cider.cider_scorer import CiderScorer

    scorer = CiderScorer()  # n-grams up to 4, and a Gaussian of 6 words for the length
    for reference, answer in zip(right, said, strict=True):
        scorer += (answer, [reference])
    return round(float(scorer.compute_score()[0]), 3)


def circles(text: str) -> bool:
    """Whether some words come again and again."""
    return circling(text.split(), GRAM)


def no_worse(original: dict[str, Judged], other: dict[str, Judged]) -> float:
    """Percent of all clips whose answers have no more errors than the original's."""
    both = [
        (a, b)
        for kind in original
        for a, b in zip(original[kind].wrong, other[kind].wrong, strict=True)
    ]
    return round(100 * sum(b <= a for a, b in both) / len(both), 2)


def normal(text: str) -> str:
    """By Whisper's English normaliser, with digits apart.

    It writes "one two three" as 123, one word; a string of six digits with one wrong would be
    wrong as a whole.
    """
    return re.sub(r"(?<=\d)(?=\d)", " ", _normaliser()(text))


@cache
def _normaliser() -> Callable[[str], str]:
    from transformers.models.whisper.english_normalizer import EnglishTextNormalizer

    return EnglishTextNormalizer({})


def hard(count: int, seed: int) -> list[Clip]:
    """Sounds of half a second to two, over another one and hiss: not always named right."""
    chance = random.Random(f"{seed} hard")
    return [_hard(chance) for _ in range(count)]


def _hard(chance: random.Random) -> Clip:
    draw = np.random.default_rng(chance.getrandbits(63))
    name, other = chance.sample(SOUND_NAMES, 2)
    seconds = chance.uniform(0.5, 2.0)
    pcm = _even(sounds.make(name, seconds, draw))
    behind = _even(sounds.make(other, seconds + 0.01, draw)[: len(pcm)])
    hiss = draw.standard_normal(len(pcm))
    pcm = (
        pcm
        + behind * 10 ** (-chance.uniform(2, 10) / 20)
        + hiss * 10 ** (-chance.uniform(6, 20) / 20)
    )
    return Clip((0.5 * pcm / np.abs(pcm).max()).astype(np.float32), (), name)


def _even(pcm: np.ndarray) -> np.ndarray:
    """With a power of 1."""
    return pcm / max(float(np.sqrt(np.mean(pcm**2))), 1e-9)


def right(kind: str, clips: Sequence[Clip]) -> list[str]:
    """What is to be said about each clip."""
    if kind in CAPTIONED:
        return [phrases.caption(clip.sound, bool(clip.words)) for clip in clips]
    return [clip.text for clip in clips]
