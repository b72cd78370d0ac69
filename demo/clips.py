"""The clips that `make demo` listens to, made anew: python -m demo.clips"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from demo import phrases, sounds, voices
from demo.voices import RATE, Voice

FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Example:
    """A file, the task to ask of it, and the right answer."""

    file: str
    task: str
    right: str


EXAMPLES = (
    Example("lamp.wav", "transcribe", "turn on the lamp in the kitchen"),
    Example("digits.wav", "transcribe", "four two eight eight one"),
    Example("siren.wav", "describe", phrases.SOUNDS["siren"]),
)
# None of these variants is in the training data.
SPEAKERS = {"lamp.wav": Voice("en+f4", 150), "digits.wav": Voice("en-us+m4", 140)}


def make(folder: Path) -> None:
    """Write all of them: 16 kHz, 16 bits, below 100 kB."""
    for example in EXAMPLES:
        if example.file in SPEAKERS:
            pcm = voices.speak(example.right, SPEAKERS[example.file]).pcm
        else:
            pcm = sounds.make("siren", 2.5, np.random.default_rng(3))
        quiet = np.zeros(RATE // 5, np.float32)
        pcm = np.concatenate([quiet, 0.5 * pcm / np.abs(pcm).max(), quiet])
        soundfile.write(folder / example.file, pcm, RATE, subtype="PCM_16")


if __name__ == "__main__":
    make(FOLDER)
