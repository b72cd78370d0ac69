"""How soon the words of an utterance are there, clips played as they were spoken.

python bench/live_clips.py ENGINE CLIP... --rounds 3
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import time
from pathlib import Path

import numpy as np
import soundfile

import alm
from alm.generation.model import Model
from alm.hearing.events import Event, Final, Partial
from alm.hearing.following import Follower, paced

CHUNK = 0.08  # seconds of a microphone at a time
BEFORE, BEHIND = 1.0, 1.5  # seconds of hiss around a clip
HISS = 1e-4
LOUD = 0.02  # of the loudest: the last sample above it ends the speech


def played(model: Model, clip: Path, seed: int) -> tuple[list[tuple[Event, float]], float, float]:
    """Events with when they came, when the speech ended, and the processor's seconds a second.

    Times are seconds since the first sample was played.
    """
    rate = model.manifest.facts.audio.rate
    pcm, own = soundfile.read(clip, dtype="float32")
    assert own == rate and pcm.ndim == 1, f"{clip} is not of {rate} Hz and one channel"
    dice = np.random.default_rng(seed)
    around = [np.zeros(int(seconds * rate), np.float32) for seconds in (BEFORE, BEHIND)]
    sound = np.concatenate([around[0], pcm, around[1]])
    sound += (HISS * dice.standard_normal(len(sound))).astype(np.float32)
    ends = BEFORE + (np.flatnonzero(np.abs(pcm) > LOUD * np.abs(pcm).max())[-1] + 1) / rate
    step = int(CHUNK * rate)
    chunks = paced(np.split(sound, range(step, len(sound), step)), rate, pace=1.0)
    follower = Follower(model.listen(), chunks, waits=False)
    used, start = time.process_time(), time.monotonic()
    events = [(event, time.monotonic() - start) for event in follower.events()]
    return events, ends, (time.process_time() - used) / (len(sound) / rate)


def changed(events: list[tuple[Event, float]]) -> tuple[int, int, int]:
    """Words that a later text of an utterance had otherwise: shown, certain; and all words."""
    shown = certain = words = 0
    texts = [event for event, _ in events if isinstance(event, Partial | Final)]
    for before, now in itertools.pairwise(texts):
        if isinstance(before, Partial) and before.number == now.number:
            pairs = list(zip(before.text.split(), now.text.split(), strict=False))
            shown += sum(a != b for a, b in pairs)
            shown += max(0, len(before.text.split()) - len(now.text.split()))
            if isinstance(now, Final):
                sure = before.certain.split()
                certain += sum(a != b for a, b in zip(sure, now.text.split(), strict=False))
    words = sum(len(event.text.split()) for event in texts if isinstance(event, Final))
    return shown, certain, words


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("engine", type=Path)
    parser.add_argument("clips", type=Path, nargs="+", help="of the model's rate, one channel")
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    model = alm.load(given.engine, "cpu", threads=1)
    finals: list[float] = []
    partials: list[float] = []
    shares: list[float] = []
    counts = np.zeros(3, int)
    right = 0
    for clip, seed in itertools.product(given.clips, range(given.rounds)):
        events, ends, share = played(model, clip, seed)
        last = [(event, when) for event, when in events if isinstance(event, Final)]
        alone = model.generate(clip, "transcribe").text
        right += " ".join(event.text for event, _ in last if isinstance(event, Final)) == alone
        finals.append(last[-1][1] - ends)
        partials += [when - event.end for event, when in events if isinstance(event, Partial)]
        shares.append(share)
        counts += changed(events)
    runs = len(given.clips) * given.rounds
    print(f"clips played                               {runs}")
    print(f"finals that say what the clip alone says   {right}")
    for name, values in (
        ("end of speech to final, s", finals),
        ("sound to its partial, s", partials),
    ):
        middle, worst = statistics.median(values), max(values)
        print(f"{name:42} median {middle:.2f}, worst {worst:.2f} ({len(values)})")
    print(f"processor seconds a second of sound        median {statistics.median(shares):.3f}")
    print(f"words said                                 {counts[2]}")
    print(f"words of partials that a later text changed {counts[0]}, certain ones {counts[1]}")


if __name__ == "__main__":
    main()
