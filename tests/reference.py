"""What whole runs are compared on: recordings and SALMONN's reference outputs, in tests/data.

More recordings are heard where a folder `shared` stands beside the checkout; nothing needs them.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

DATA = Path(__file__).resolve().parent / "data"
SALMONN = DATA / "salmonn"  # a checkpoint, its clips, and what the original computed from them
MORE = Path(__file__).resolve().parents[2] / "shared" / "data"

# Speech of 14 and 12 s at 16 kHz, and spoken digits of half a second at 8 kHz.
LIBRISPEECH = sorted((DATA / "recordings" / "librispeech").glob("*.flac"))
DIGITS = sorted((DATA / "recordings" / "fsdd").glob("*.wav"))


def moving(samples: int, rate: int, seed: int = 1) -> np.ndarray:
    """Noise whose loudness swings as that of speech, so that nobody takes it for silence.

    float32 [samples] at `rate` Hz.
    """
    swing = 0.55 + 0.45 * np.sin(2 * np.pi * 4 * np.arange(samples) / rate)
    return (0.15 * swing * np.random.default_rng(seed).standard_normal(samples)).astype(np.float32)


def more(pattern: str, known: list[Path]) -> list[Path]:
    """Recordings beside the checkout that are not among the known ones: none in a bare clone."""
    names = {path.name for path in known}
    return [path for path in sorted(MORE.glob(pattern)) if path.name not in names]


MORE_SPEECH = more("librispeech/*.flac", LIBRISPEECH)
MORE_DIGITS = more("fsdd/recordings/0_*_0.wav", DIGITS)
