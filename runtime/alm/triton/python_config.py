"""The answering model's configuration, and the names of what it takes and gives."""

from __future__ import annotations

from typing import Any

from alm.audio.reader import HOUR
from alm.triton.pbtxt import Message, Word, parameters
from alm.triton.settings import Settings

PCM, RATE, FILE = "pcm", "rate", "file"
PROMPT, OPTIONS, STREAM = "prompt", "options", "stream"
TEXT, ANSWER = "text", "answer"

FOLDER = "model"  # below the version: what `alm.load` opens
AT_ONCE = 4  # answers that are computed side by side, where they come in pieces
# Answers take seconds, so that it costs little to wait for another question of the same batch.
WAIT = 10_000  # microseconds


def config(settings: Settings, ensemble: bool) -> Message:
    """Of the model that answers; with `ensemble` it asks that for embeddings."""
    chosen = {
        "provider": "cuda" if settings.gpu else "cpu",
        "threads": str(settings.threads),
        "max_audio_seconds": f"{HOUR:g}",
        "answers_at_once": str(AT_ONCE),
    }
    chosen |= {"front": settings.ensemble} if ensemble else {}
    chosen |= {"hard_links": "1"} if settings.link else {}
    message: dict[str, Any] = {
        "name": settings.name,
        "backend": "python",
        "max_batch_size": settings.batch,
        "input": [
            # Clips differ in length: without this no two of them would be in one batch.
            _input(PCM, "FP32", -1) | {"allow_ragged_batch": True},
            _input(RATE, "INT32"),
            _input(FILE, "STRING"),
            _input(PROMPT, "STRING", optional=False),
            _input(OPTIONS, "STRING"),
            _input(STREAM, "BOOL"),
        ],
        "output": [_tensor(TEXT, "STRING"), _tensor(ANSWER, "STRING")],
        # One process, whatever runs its graphs: KIND_GPU would start one on every GPU, each with a
        # decoder of its own.
        "instance_group": [{"kind": Word("KIND_CPU"), "count": 1}],
    }
    if settings.batch > 1:
        message["dynamic_batching"] = {"max_queue_delay_microseconds": WAIT}
    if settings.stream:
        message["model_transaction_policy"] = {"decoupled": True}
    return message | {"parameters": parameters(chosen)}


def _input(name: str, kind: str, size: int = 1, optional: bool = True) -> dict[str, Any]:
    return _tensor(name, kind, size) | ({"optional": True} if optional else {})


def _tensor(name: str, kind: str, size: int = 1) -> dict[str, Any]:
    return {"name": name, "data_type": Word(f"TYPE_{kind}"), "dims": [size]}
