"""Words lost and doubled where a long clip is cut: python bench/joins.py --help

Clips of known words, as long as several windows of the demo model (10 s), are transcribed with both
ways to join. Every word has its time, so that errors near a cut can be told from the others.
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import sys
import time
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "runtime")]

import alm  # noqa: E402
from alm.audio.reader import Clip  # noqa: E402
from demo import phrases, sounds, voices  # noqa: E402
from demo.voices import HELD_OUT_VARIANTS, RATE, Said, Voice  # noqa: E402

LENGTHS = (31, 61, 119, 200, 600)  # seconds
NEAR = 1.0  # seconds between a word and a cut
EDGE = 0.03  # seconds by which the times of words may be wrong
WAYS = ("exact", "quiet")
Word = tuple[str, float, float]


def sentence(chance: random.Random, voice: Voice) -> Said:
    """A command in a voice that was not trained with."""
    blanks = {name: chance.choice(words) for name, words in phrases.BLANKS.items()}
    return voices.speak(chance.choice(phrases.FORMS).format(**blanks), voice)


def digits(chance: random.Random, takes: voices.Takes) -> Said:
    """Some recorded digits of one speaker, one after the other."""
    speaker = chance.choice(sorted({who for who, _ in takes}))
    named = [chance.randrange(10) for _ in range(chance.randint(3, 6))]
    pcms = [voices.recording(chance.choice(takes[speaker, str(n)])) for n in named]
    pairs = [(phrases.DIGITS[n], pcm) for n, pcm in zip(named, pcms, strict=True)]
    return voices.string_together(pairs, chance)


def long_clip(
    kind: str, seconds: float, takes: voices.Takes, seed: int
) -> tuple[np.ndarray, list[Word]]:
    """Sound of so many seconds, and its words with their times.

    "commands" and "digits" pause for 2 to 5 s between sentences, as the demo model was taught one
    sentence a window; "no pauses" are commands of one voice that follow each other at once, over
    pink noise at 15 dB.
    """
    chance = random.Random(seed)
    pieces, words, at = [], [], 0
    voice = Voice.drawn(chance, HELD_OUT_VARIANTS)
    while at < seconds * RATE:
        if kind != "no pauses":
            voice = Voice.drawn(chance, HELD_OUT_VARIANTS)
        said = digits(chance, takes) if kind == "digits" else sentence(chance, voice)
        pcm = 0.5 * said.pcm / np.abs(said.pcm).max()
        pause = 0.0 if kind == "no pauses" else chance.uniform(2.0, 5.0)
        words += [(word, at / RATE + start, at / RATE + end) for word, start, end in said.words]
        pieces += [pcm, np.zeros(int(pause * RATE), np.float32)]
        at += sum(map(len, pieces[-2:]))
    pcm = np.concatenate(pieces)[: int(seconds * RATE)]
    level = 0.1 * 10 ** (-15 / 20) if kind == "no pauses" else 1e-4
    pcm = (
        pcm
        + level
        * sounds.make("pink", len(pcm) / RATE + 0.001, np.random.default_rng(seed))[: len(pcm)]
    )
    return pcm.astype(np.float32), [word for word in words if word[2] <= seconds]


def errors(words: Sequence[Word], heard: Sequence[str], cuts: Sequence[float]) -> dict[str, float]:
    """Word errors, and words lost (left out or taken for others) and added near cuts."""
    table = np.zeros((len(words) + 1, len(heard) + 1), np.int32)
    table[:, 0], table[0] = np.arange(len(words) + 1), np.arange(len(heard) + 1)
    for i, (word, _, _) in enumerate(words, 1):
        same = table[i - 1, :-1] + [word != other for other in heard]
        for j in range(1, len(heard) + 1):
            table[i, j] = min(same[j - 1], table[i - 1, j] + 1, table[i, j - 1] + 1)
    i, j, lost, added = len(words), len(heard), 0, 0

    def near(index: int) -> bool:
        word = words[min(max(index, 0), len(words) - 1)]
        return any(word[1] - NEAR < cut < word[2] + NEAR for cut in cuts)

    while i or j:
        if i and j and table[i, j] == table[i - 1, j - 1] + (words[i - 1][0] != heard[j - 1]):
            lost += words[i - 1][0] != heard[j - 1] and near(i - 1)
            i, j = i - 1, j - 1
        elif i and table[i, j] == table[i - 1, j] + 1:
            lost += near(i - 1)
            i -= 1
        else:
            added += near(i - 1)
            j -= 1
    return {"errors": int(table[-1, -1]), "lost": int(lost), "added": int(added)}


def halved(model: alm.Model, pcm: np.ndarray, words: Sequence[Word], way: str) -> int:
    """Words that no window holds whole, whatever a model makes of the windows."""
    pieces, _ = model.parts.rules.windows(Clip(pcm, RATE, RATE), False, True, way)
    spans = [(piece.start / RATE, (piece.start + piece.samples) / RATE) for piece in pieces]
    return sum(
        not any(a - EDGE <= start and end <= b + EDGE for a, b in spans) for _, start, end in words
    )


def rows(model: alm.Model, takes: voices.Takes, seeds: int) -> list[dict[str, Any]]:
    """Of each kind, length and way: words, errors and those near cuts, windows, seconds."""
    found = []
    for kind in ("commands", "digits", "no pauses"):
        for seconds in LENGTHS:
            made = [
                long_clip(kind, seconds, takes, seed)
                for seed in range(max(1, seeds * 60 // seconds))
            ]
            for way in WAYS:
                row: dict[str, Any] = {"kind": kind, "seconds": seconds, "way": way}
                row |= {"clips": len(made), "words": 0, "cuts": 0, "took": 0.0, "halved": 0}
                for pcm, words in made:
                    start = time.perf_counter()
                    answer = model.generate((pcm, RATE), "transcribe", joins=way)  # pyright: ignore
                    row["took"] += time.perf_counter() - start
                    row["halved"] += halved(model, pcm, words, way)
                    cuts = [segment.start for segment in answer.segments[1:]]
                    row["words"], row["cuts"] = row["words"] + len(words), row["cuts"] + len(cuts)
                    for name, count in errors(words, answer.text.split(), cuts).items():
                        row[name] = row.get(name, 0) + count
                found.append(row)
                print(row, flush=True)
    return found


def table(found: Sequence[dict[str, Any]], command: str) -> str:
    """The results in Markdown."""
    lines = [
        "# Long clips cut for a transcript",
        "",
        f"`{command}`, {date.today()}, {platform.machine()} with {platform.system()}, one core; "
        "the demo model, whose window is 10 s. Errors in percent of the words; lost (left out or "
        f"taken for another) and added are counted within {NEAR:g} s of a cut. Halved are words "
        "that no window holds whole: those are the cutter's doing, the rest is the model's, which "
        "was taught one sentence a window.",
        "",
        "| speech | seconds | joins | clips | words | errors | cuts | halved | "
        "lost at cuts | added at cuts | time |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {r['kind']} | {r['seconds']} | {r['way']} | {r['clips']} | {r['words']} | "
        f"{100 * r['errors'] / r['words']:.1f} | {r['cuts']} | {r['halved']} | {r['lost']} | "
        f"{r['added']} | {r['took']:.1f} s |"
        for r in found
    ]
    lines += [
        "",
        "| speech | joins | errors | halved at 100 cuts | lost at 100 cuts | added at 100 cuts |",
        "|---|---|---|---|---|---|",
    ]
    for kind in dict.fromkeys(r["kind"] for r in found):
        for way in WAYS:
            of = [r for r in found if r["kind"] == kind and r["way"] == way]
            names = ("words", "errors", "halved", "lost", "added", "cuts")
            words, wrong, half, lost, added, cuts = (sum(r[name] for r in of) for name in names)
            lines.append(
                f"| {kind} | {way} | {100 * wrong / words:.1f} | {100 * half / cuts:.0f} | "
                f"{100 * lost / cuts:.0f} | "
                f"{100 * added / cuts:.0f} |"
            )
    return "\n".join([*lines, ""])


def main() -> None:
    """Measure, print, and write into --out."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--engine", type=Path, default=ROOT / "artifacts", help="the demo model's")
    parser.add_argument("--recordings", type=Path, required=True, help="fsdd's recordings")
    parser.add_argument("--clips", type=int, default=3, help="of a minute; fewer of longer ones")
    parser.add_argument("--out", type=Path, default=ROOT / "bench/results")
    said = parser.parse_args()
    model = alm.load(said.engine, "cpu", threads=1)
    speakers = ["george", "jackson", "lucas", "nicolas"]
    takes = voices.takes(said.recordings, speakers, held_out=True)
    found = rows(model, takes, said.clips)
    said.out.mkdir(parents=True, exist_ok=True)
    text = table(found, f"python bench/joins.py --recordings DIR --clips {said.clips}")
    (said.out / "joins.md").write_text(text, "utf-8")
    (said.out / "joins.json").write_text(json.dumps(found, indent=1), "utf-8")
    print(text)


if __name__ == "__main__":
    main()
