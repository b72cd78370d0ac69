"""alm-edge on the device: audio and a prompt in, text out, without PyTorch.

model = alm.load("artifacts/")
print(model.generate("clip.wav", "transcribe").text)
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from alm.errors import (
    AlmError,
    BadArtifacts,
    BadAudio,
    BadCheckpoint,
    BadOption,
    BadPrompt,
    ExportFailed,
    MissingEngine,
    MissingFile,
    UnknownName,
)
from alm.version import __version__ as __version__

if TYPE_CHECKING:
    from alm.generation.model import Model

__all__ = [
    "AlmError",
    "BadArtifacts",
    "BadAudio",
    "BadCheckpoint",
    "BadOption",
    "BadPrompt",
    "ExportFailed",
    "MissingEngine",
    "MissingFile",
    "UnknownName",
    "load",
]


def load(
    folder: str | Path, provider: str = "auto", threads: int = 0, audio_cache: int = 64 * 2**20
) -> Model:
    """Verify the artifacts in `folder` and open them.

    Args:
        folder: what export.py wrote.
        provider: an engine's provider ("cpu", "cuda"), or "auto" for the best one installed.
        threads: of each graph on the CPU; 0 leaves the choice to the engine. Graphs that do not
            wait for each other run side by side where each has so many cores of its own.
        audio_cache: bytes of audio embeddings remembered, so that another question about a clip
            heard before computes no encoder; 0 remembers nothing.

    Raises:
        MissingFile, BadArtifacts: a file is not there, or is not what the manifest says.
        UnknownName, MissingEngine: the provider is unknown, or its package not installed.
        BadOption: audio_cache is below 0.
    """
    from alm.generation.model import Model

    return Model(Path(folder), provider, threads, audio_cache)
