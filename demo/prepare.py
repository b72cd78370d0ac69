"""Which clips are learned from and which are held out, and their features on disk."""

from __future__ import annotations

from pathlib import Path

from demo import data, voices
from demo.compose import HELD_OUT_SPEAKER, SPEAKERS, Sources

SHARES = {"command": 0.36, "digits": 0.24, "recorded": 0.28, "sound": 0.12}


def prepare(work: Path, recordings: Path, shards: int, clips: int) -> None:
    """Compose what is not there yet: shards to learn from, and clips to watch the errors on."""
    known = voices.takes(recordings, list(SPEAKERS), held_out=False)
    for number in range(shards):
        file = work / "data" / f"shard-{number:02}.pt"
        if not file.is_file():
            sources = Sources(voices.VARIANTS, known, SHARES, background=0.3)
            data.make_shard(file, sources, clips, seed=1000 + number)
            print(f"{file}: {clips} clips", flush=True)
    for number, (name, sources) in enumerate(watched(recordings).items()):
        file = work / "data" / f"watch-{name}.pt"
        if not file.is_file():
            data.make_shard(file, sources, 100, seed=50 + number)


def watched(recordings: Path) -> dict[str, Sources]:
    """Held-out clips by kind: new espeak-ng voices, new takes, a new speaker, and captions."""
    takes = voices.takes(recordings, list(SPEAKERS), held_out=True)
    stranger = voices.takes(recordings, [HELD_OUT_SPEAKER], held_out=True)
    new = voices.HELD_OUT_VARIANTS
    spoken, recorded = {"command": 0.5, "digits": 0.5}, {"recorded": 1.0}
    captions = {"command": 0.3, "digits": 0.2, "sound": 0.5}
    return {
        "voices": Sources(new, takes, spoken, 0.0, disturb=False),
        "takes": Sources(new, takes, recorded, 0.0, disturb=False),
        "stranger": Sources(new, stranger, recorded, 0.0, disturb=False),
        "over": Sources(new, takes, spoken, 1.0, disturb=False),
        "captions": Sources(new, takes, captions, 0.7, disturb=False),
    }
