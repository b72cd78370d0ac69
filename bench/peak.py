"""The most memory of a process that answers clips: python bench/peak.py MODEL CLIP...

MODEL is a folder of artifacts, asked through `alm` as on a device, or the config.yaml of the demo
model, asked through torch. Each clip is transcribed and described. bench/accuracy.py runs this for
each of its rows: its own process holds all of them at once.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "runtime")]

from alm.host import processor  # noqa: E402

TASKS = ("transcribe", "describe")


def asking(model: Path) -> Callable[[Any, str], object]:
    """What answers samples of 16 kHz."""
    if model.is_file():
        from demo.reference import Reference

        return Reference(model).answer
    import alm

    loaded = alm.load(model, "cpu", audio_cache=0)
    return lambda pcm, words: loaded.generate(pcm, words)


def main() -> None:
    """Print the bytes."""
    import soundfile

    parser = argparse.ArgumentParser(description="the most memory of a process that answers")
    parser.add_argument("model", type=Path)
    parser.add_argument("clip", type=Path, nargs="+")
    said = parser.parse_args()
    ask = asking(said.model)
    for clip in said.clip:
        pcm, _ = soundfile.read(clip, dtype="float32")
        for words in TASKS:
            ask(pcm, words)
    peak = processor.memory()["peak"]
    if peak is None:
        raise SystemExit("this system does not count the memory of a process")
    print(peak)


if __name__ == "__main__":
    main()
