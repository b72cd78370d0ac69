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
    HubFailed,
    MissingFile,
    MissingPackage,
    UnknownName,
)
from alm.version import __version__ as __version__

if TYPE_CHECKING:
    from alm.cache.audio import Forward
    from alm.decoding.options import Options
    from alm.generation.answers import Answer
    from alm.generation.conversation import Conversation
    from alm.generation.model import Model

__all__ = [
    "AlmError",
    "Answer",
    "BadArtifacts",
    "BadAudio",
    "BadCheckpoint",
    "BadOption",
    "BadPrompt",
    "Conversation",
    "ExportFailed",
    "HubFailed",
    "MissingPackage",
    "MissingFile",
    "Model",
    "Options",
    "UnknownName",
    "load",
]

# Imported when they are asked for: numpy alone takes longer than all of `import alm`.
_LATE = {
    "Answer": "alm.generation.answers",
    "Conversation": "alm.generation.conversation",
    "Model": "alm.generation.model",
    "Options": "alm.decoding.options",
}

if not TYPE_CHECKING:  # a type checker would take every name there is

    def __getattr__(name: str) -> object:
        if name not in _LATE:
            raise AttributeError(f"module 'alm' has no attribute {name!r}")
        from importlib import import_module

        return getattr(import_module(_LATE[name]), name)

    def __dir__() -> list[str]:
        return sorted({*globals(), *_LATE})


def load(
    folder: str | Path,
    provider: str = "auto",
    threads: int = 0,
    audio_cache: int = 64 * 2**20,
    align: str | Path | None = None,
    cache: str | Path | None = None,
    draft: str | Path | None = None,
    together: int = 1,
    front: Forward | None = None,
) -> Model:
    """Verify the artifacts in `folder` and open them.

    Args:
        folder: what export.py wrote; or `hub:org/name` or `hub:org/name@revision`, a model on a
            hub, which is fetched once (docs/hub.md). `align` and `draft` may be such models too.
        provider: a backend's provider ("cpu", "cuda"), or "auto" for the best one installed.
        threads: of each graph on the CPU; 0 leaves the choice to the backend. Graphs that do not
            wait for each other run side by side where each has so many cores of its own.
        audio_cache: bytes of audio embeddings remembered, so that another question about a clip
            given before computes no encoder; 0 remembers nothing in memory, the beginnings of
            prompts neither.
        align: the folder of an aligner, which times the words of answers (`Answer.segments`).
        draft: the folder of a smaller model with the same tokenizer, whose guesses the model reads
            several at once, or "ngrams", to guess by what was said before. The answers are those
            without; where guesses lose time they rest.
        cache: a folder, made if it is missing, in which embeddings of clips and the beginnings of
            prompts are kept for later runs, up to 1 GiB; several models may share it.
        together: so many answers that threads ask for at once are computed as rows of one step,
            which each joins and leaves as it likes, and graphs run one at a time: for servers.
            Only where the graphs take several rows (`--dynamic-batch`) and the cache is of a fixed
            capacity in the processor's memory; elsewhere such answers wait for each other's steps.
        front: runs the parts before the decoder, such as on a server that has them: `forward` takes
            samples as `pcm` float32 [rows, samples] and `pcm_lengths` int64 [rows] and gives what
            those parts give. Their files are then neither wanted nor opened here.

    Raises:
        MissingFile, BadArtifacts: a file is not there, or is not what the manifest says.
        HubFailed: the hub cannot be reached or refuses.
        UnknownName, MissingPackage: the provider is unknown, or its package not installed.
        BadOption: audio_cache is below 0, `cache` can be no folder, `draft` cannot draft,
            `together` is no number of answers, or `front` is for a model that hears a stream.
    """
    from alm.generation.model import Model
    from alm.hub import local

    kept = None if cache is None else Path(cache)
    small = draft if draft is None else local.folder(draft)
    model = Model(
        local.folder(folder), provider, threads, audio_cache, kept, small, together, front
    )
    if align is not None:
        from alm.align.aligner import Aligner

        model.parts.align_with(Aligner(local.folder(align), provider, threads))
    return model
