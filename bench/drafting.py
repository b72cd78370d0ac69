"""Drafts beside plain greedy steps, in a 4-bit decoder of real size: python bench/drafting.py

An answer is decoded plainly, then again with drafts of which so many tokens are right: a previous
hypothesis of a live clip, an overlap of two windows, a smaller model. The weights are random, so
the text means nothing; what a step reads and computes is that of a trained model, and how often a
draft is right is set, since that is a property of the text. All ways take turns.

Products of few bits round their inputs, and a sum that differs in its last bit can round the next
input the other way. So several positions at once give logits that differ a little from those of one
position, and random weights, whose best tokens are nearly as good as each other, show it. The bench
measures that difference, and stops where an answer leaves the plain one by more than it explains.
"""

from __future__ import annotations

import argparse
import platform
import random
import shlex
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "runtime")]

from alm.decoder.decoder import Decoder  # noqa: E402
from alm.drafting.gain import Gain  # noqa: E402
from alm.drafting.ngrams import Ngrams  # noqa: E402
from alm.drafting.verified import Drafter, Verified  # noqa: E402
from alm.host import processor  # noqa: E402
from bench.beside import preparing  # noqa: E402
from bench.beside.base import Place, pin  # noqa: E402
from bench.beside.ours import OursDecoder  # noqa: E402
from bench.beside.shapes import PROMPT  # noqa: E402

RIGHT = (1.0, 0.95, 0.9, 0.8, 0.6)  # shares of a draft's tokens
MOST = 8  # positions at once, of which the noise is measured
TRIES = 6  # to find the answer that drafts of it lead to


@dataclass
class Hypothesis:
    """A text that is nearly the answer: it goes on behind what was said, wherever that stands."""

    ids: Sequence[int]

    def propose(self, ids: Sequence[int], most: int) -> list[int]:
        """See `Drafter`."""
        return list(self.ids[len(ids) : len(ids) + most])


def spoiled(answer: Sequence[int], right: float, vocab: int, seed: int) -> list[int]:
    """The answer with so many of its tokens as they were, the others drawn."""
    chance = random.Random(seed)
    return [token if chance.random() < right else chance.randrange(vocab) for token in answer]


def said(decoder: Decoder, prompt: np.ndarray, count: int) -> Plain:
    """A plain greedy answer of so many tokens."""
    decoder.start(1, len(prompt) + count + 16)
    logits = [decoder.feed(decoder.table(prompt)[None], np.array([len(prompt)]))[0]]
    ids, start = [int(logits[0].argmax())], time.perf_counter()
    while len(ids) < count:
        logits.append(decoder.step(np.array([ids[-1]]))[0])
        ids.append(int(logits[-1].argmax()))
    seconds = (time.perf_counter() - start) / (count - 1)
    return Plain(ids, np.array(logits), seconds)


def drafted(
    decoder: Decoder, prompt: np.ndarray, count: int, drafters: Sequence[Drafter]
) -> tuple[list[int], float, float]:
    """The same with drafts; also the share of drafted tokens that were chosen."""
    most = len(prompt) + count + 16
    decoder.start(1, most)
    verified = Verified(decoder, drafters, Gain(), most)
    logits = verified.feed(decoder.table(prompt)[None], np.array([len(prompt)]))[0]
    ids, start = [int(logits.argmax())], time.perf_counter()
    while len(ids) < count:
        ids.append(int(verified.step(np.array([ids[-1]]))[0].argmax()))
    seconds = (time.perf_counter() - start) / (count - 1)
    proposed, accepted = verified.drafted()
    return ids, seconds, accepted / max(proposed, 1)


Guessing = Callable[[Sequence[int]], Drafter]  # of an answer


@dataclass
class Way:
    """A way of drafting, and what was measured of it."""

    name: str
    guessing: Guessing
    answer: list[int] = field(default_factory=list)
    same: int = 0  # so many tokens are the plain answer's; then it took another of two near ones
    ms: list[float] = field(default_factory=list)
    accepted: list[float] = field(default_factory=list)


def ways(vocab: int) -> list[Way]:
    """All that are measured: hypotheses that are right more and less, and n-grams."""

    def hypothesis(right: float) -> Guessing:
        return lambda answer: Hypothesis(spoiled(answer, right, vocab, 1))

    def ngrams(answer: Sequence[int]) -> Drafter:
        made = Ngrams()
        made.learn(answer)
        made.begin()
        return made

    names = {right: f"a hypothesis, {right:.0%} of its tokens right" for right in RIGHT}
    found = [Way(name, hypothesis(right)) for right, name in names.items()]
    found.append(Way("n-grams of a text that said it before", ngrams))
    return [*found, Way("a hypothesis that is always wrong", hypothesis(0.0))]


@dataclass(frozen=True)
class Plain:
    """An answer without drafts."""

    ids: list[int]
    logits: np.ndarray  # [tokens, vocab]
    seconds: float  # a token

    def leaves(self, ids: Sequence[int]) -> tuple[int, float]:
        """Where another answer leaves this one, and how much less likely its token was here."""
        pairs = enumerate(zip(self.ids, ids, strict=True))
        at = next((i for i, (a, b) in pairs if a != b), len(ids))
        gap = self.logits[at, self.ids[at]] - self.logits[at, ids[at]] if at < len(ids) else 0.0
        return at, float(gap)


def noise(decoder: Decoder, prompt: np.ndarray, plain: Plain) -> float:
    """The most that a logit of several positions at once differs from that of one position."""
    decoder.start(1, len(prompt) + 32)
    decoder.feed(decoder.table(prompt)[None], np.array([len(prompt)]))
    together = decoder.steps(plain.ids[:MOST])
    return float(np.abs(together - plain.logits[1 : MOST + 1]).max())


def settle(way: Way, decoder: Decoder, prompt: np.ndarray, plain: Plain, most: float) -> None:
    """Find the answer that the way's own drafts lead to, and hold it against the plain one.

    Raises:
        RuntimeError: it leaves the plain one where the tokens were further apart than `most`.
    """
    way.answer = plain.ids
    for _ in range(TRIES):
        guess = [way.guessing(way.answer)]
        ids, _, _ = drafted(decoder, prompt, len(plain.ids), guess)
        way.same, gap = plain.leaves(ids)
        if gap > most:
            raise RuntimeError(f"{way.name}: token {way.same} is {gap:.3f} less likely than plain")
        if ids == way.answer:
            return
        way.answer = ids


def measure(
    decoder: Decoder, vocab: int, tokens: int, turns: int
) -> tuple[list[float], float, list[Way]]:
    """Milliseconds a token plainly, the noise of logits, and each way of drafting, in turns.

    Raises:
        RuntimeError: a drafted answer is another than the plain one, by more than the noise.
    """
    prompt = np.random.default_rng(0).integers(0, vocab, PROMPT)
    plain, every = said(decoder, prompt, tokens), ways(vocab)
    off = noise(decoder, prompt, plain)
    for way in every:
        settle(way, decoder, prompt, plain, 2 * off)  # either of two tokens may be off
    took: list[float] = []
    for _ in range(turns):
        took.append(1e3 * said(decoder, prompt, tokens).seconds)
        for way in every:
            guess = [way.guessing(way.answer)]
            _, seconds, accepted = drafted(decoder, prompt, tokens, guess)
            way.ms.append(1e3 * seconds)
            way.accepted.append(accepted)
    return took, off, every


def page(
    command: str, shape: str, tokens: int, plain: list[float], off: float, every: list[Way]
) -> str:
    """The results in Markdown."""
    facts = processor.facts()
    base = statistics.median(plain)
    spread = f"{min(plain):.1f} to {max(plain):.1f}"
    lines = [
        "# Drafts",
        "",
        f"`{command}`, {date.today()}, {facts['processor']}, {facts['usable_cores']} cores, "
        f"{platform.system()}. Shape {shape} in int4, random weights, answers of {tokens} tokens "
        "behind a prompt of 111; medians of turns, and their spread.",
        "",
        "| way | accepted | tokens as plain | ms a token | spread | x plain |",
        "|---|---|---|---|---|---|",
        f"| plain steps | - | {tokens} | {base:.1f} | {spread} | 1.00 |",
    ]
    for way in every:
        ms, spread = statistics.median(way.ms), f"{min(way.ms):.1f} to {max(way.ms):.1f}"
        share = f"{statistics.median(way.accepted):.0%}"
        same = f"{way.same}" if way.same == tokens else f"{way.same}, then the other of two near"
        lines.append(f"| {way.name} | {share} | {same} | {ms:.1f} | {spread} | {base / ms:.2f} |")
    lines += [
        "",
        f"Several positions at once give logits that differ by up to {off:.2g} from those of one "
        "position. Where an answer leaves the plain one, the two tokens were at most twice that "
        "apart; drafts are of the answer that they lead to.",
    ]
    return "\n".join([*lines, ""])


def main() -> None:
    """Measure, print, and write bench/results/drafting.md."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--shape", default="llama32_1b", help="of bench/peers.py")
    parser.add_argument("--work", type=Path, default=Path.home() / ".cache" / "alm-peers")
    parser.add_argument("--tokens", type=int, default=96)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=ROOT / "bench/results")
    given = parser.parse_args()
    place = Place(given.work, given.shape, given.threads)
    (entry,) = (e for e in preparing.entries() if e.name == "decoder:int4")
    preparing.ready(entry, place, lambda line: print(line, file=sys.stderr), again=True)
    pin(given.threads)
    peer = entry.peer(place)
    assert isinstance(peer, OursDecoder)
    peer.load()
    plain, off, every = measure(peer.decoder, place.llm.vocab, given.tokens, given.turns)
    text = page(
        shlex.join(["python", "bench/drafting.py", *sys.argv[1:]]),
        given.shape,
        given.tokens,
        plain,
        off,
        every,
    )
    given.out.mkdir(parents=True, exist_ok=True)
    (given.out / "drafting.md").write_text(text, "utf-8")
    print(text)


if __name__ == "__main__":
    main()
