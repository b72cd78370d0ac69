"""Drafts beside plain greedy steps, in a 4-bit decoder of real size: python bench/drafting.py

An answer is decoded plainly, then again with drafts of which so many tokens are right: a previous
hypothesis of a live clip, an overlap of two windows, a smaller model. The weights are random, so
the text means nothing; what a step reads and computes is that of a trained model, and how often a
draft is right is set, since that is a property of the text. Every answer is compared with the plain
one, token by token. All ways take turns.
"""

from __future__ import annotations

import argparse
import platform
import random
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
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


def said(decoder: Decoder, prompt: np.ndarray, count: int) -> tuple[list[int], float]:
    """A plain greedy answer of so many tokens, and seconds a token without the prompt's."""
    decoder.start(1, len(prompt) + count + 16)
    logits = decoder.feed(decoder.table(prompt)[None], np.array([len(prompt)]))[0]
    ids, start = [int(logits.argmax())], time.perf_counter()
    while len(ids) < count:
        ids.append(int(decoder.step(np.array([ids[-1]]))[0].argmax()))
    return ids, (time.perf_counter() - start) / (count - 1)


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


@dataclass
class Way:
    """A way of drafting, and what was measured of it."""

    name: str
    drafters: Sequence[Drafter]
    ms: list[float]
    accepted: list[float]


def ways(answer: Sequence[int], vocab: int) -> list[Way]:
    """All that are measured: hypotheses that are right more and less, and n-grams."""
    found = [
        Way(f"a hypothesis, {right:.0%} of its tokens right", [Hypothesis(text)], [], [])
        for right in RIGHT
        for text in [spoiled(answer, right, vocab, 1)]
    ]
    learnt = Ngrams()
    learnt.learn(answer)
    found.append(Way("n-grams of a text that said it before", [learnt], [], []))
    strange = Hypothesis(spoiled(answer, 0.0, vocab, 2))
    return [*found, Way("a hypothesis that is always wrong", [strange], [], [])]


def measure(decoder: Decoder, vocab: int, tokens: int, turns: int) -> tuple[list[float], list[Way]]:
    """Milliseconds a token, plainly and with each way of drafting, in turns.

    Raises:
        RuntimeError: a drafted answer is another than the plain one.
    """
    prompt = np.random.default_rng(0).integers(0, vocab, PROMPT)
    answer, _ = said(decoder, prompt, tokens)
    every, plain = ways(answer, vocab), list[float]()
    for _ in range(turns):
        again, seconds = said(decoder, prompt, tokens)
        plain.append(1e3 * seconds)
        for way in every:
            for drafter in way.drafters:
                if isinstance(drafter, Ngrams):
                    drafter.begin()
            ids, seconds, accepted = drafted(decoder, prompt, tokens, way.drafters)
            if ids != answer or again != answer:
                raise RuntimeError(f"{way.name}: the answer is another than the plain one")
            way.ms.append(1e3 * seconds)
            way.accepted.append(accepted)
    return plain, every


def page(command: str, shape: str, tokens: int, plain: list[float], every: list[Way]) -> str:
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
        "| way | accepted | ms a token | spread | x plain |",
        "|---|---|---|---|---|",
        f"| plain steps | - | {base:.1f} | {spread} | 1.00 |",
    ]
    for way in every:
        ms, spread = statistics.median(way.ms), f"{min(way.ms):.1f} to {max(way.ms):.1f}"
        share = f"{statistics.median(way.accepted):.0%}"
        lines.append(f"| {way.name} | {share} | {ms:.1f} | {spread} | {base / ms:.2f} |")
    lines += ["", "All answers are the plain ones, token by token."]
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
    plain, every = measure(peer.decoder, place.llm.vocab, given.tokens, given.turns)
    text = page("python bench/drafting.py", given.shape, given.tokens, plain, every)
    given.out.mkdir(parents=True, exist_ok=True)
    (given.out / "drafting.md").write_text(text, "utf-8")
    print(text)


if __name__ == "__main__":
    main()
