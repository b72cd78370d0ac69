"""What a peer offers to be measured, and where its files lie."""

from __future__ import annotations

import json
import os
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from bench.beside.shapes import LLMS, SHAPES, WHISPERS, Ears, Llm

TRUTH = "EncoderFp32"  # the row of the original in float32
MADE = "made.json"  # beside a product: what making it cost, and what is known of it


@dataclass(frozen=True)
class Place:
    """A shape, the folder of all that is made for it, and how many threads may work."""

    work: Path
    shape: str
    threads: int = 2

    @property
    def llm(self) -> Llm:
        return LLMS[SHAPES[self.shape].llm]

    @property
    def ears(self) -> Ears:
        return WHISPERS[SHAPES[self.shape].whisper]

    @property
    def model(self) -> Path:
        """The folder of the checkpoint that all products are made of."""
        return self.work / "models" / self.shape

    def product(self, name: str) -> Path:
        """The folder of a peer's own files."""
        return self.work / "made" / self.shape / name

    def facts(self, name: str) -> dict[str, Any]:
        """What was written down when a product was made."""
        file = self.product(name) / MADE
        return json.loads(file.read_text()) if file.is_file() else {}

    @property
    def truth(self) -> Path:
        """The file of what the original's encoder hears, which the row TRUTH writes."""
        return self.work / "heard" / f"{self.shape}.npy"

    def interpreter(self, environment: str) -> Path:
        """The Python of an environment."""
        return self.work / "env" / environment / "bin" / "python"


def thread_settings(threads: int) -> dict[str, str]:
    """Environment variables of a measured process: its threads, and no network."""
    pools = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    return dict.fromkeys(pools, str(threads)) | {
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "ORT_DISABLE_TELEMETRY": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }


def pin(threads: int) -> None:
    """Stay on as many processors, of different cores where there are enough.

    Pools that nothing here sets the size of then have nowhere else to run.
    """
    allowed = sorted(os.sched_getaffinity(0))
    siblings: dict[str, list[int]] = {}
    for cpu in allowed:
        file = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
        siblings.setdefault(file.read_text() if file.is_file() else str(cpu), []).append(cpu)
    deepest = max(len(core) for core in siblings.values())
    order = [core[i] for i in range(deepest) for core in siblings.values() if i < len(core)]
    os.sched_setaffinity(0, order[:threads])


class Peer(ABC):
    """One row: a runtime with its files. Importing this module's users needs none of the peers."""

    kind: ClassVar[str]
    label: ClassVar[str]
    product: ClassVar[str]  # the name of what it is measured on
    note: ClassVar[str] = ""
    ours: ClassVar[bool] = False

    def __init__(self, place: Place) -> None:
        self.place = place

    @property
    def folder(self) -> Path:
        return self.place.product(self.product)

    @abstractmethod
    def imports(self) -> None:
        """Import the libraries, which is not part of the load time."""

    @abstractmethod
    def versions(self) -> str:
        """Of the libraries, after `imports`."""

    @abstractmethod
    def load(self) -> None:
        """Make ready for the first call."""

    @abstractmethod
    def files(self) -> list[Path]:
        """What a user would have to ship."""

    @property
    def megabytes(self) -> float:
        """Of `files`, in 10^6 bytes."""
        return sum(file.stat().st_size for file in self.files()) / 1e6


class Decoder(Peer):
    """Text generation, greedy."""

    kind = "decoder"

    @abstractmethod
    def prefill(self, count: int) -> None:
        """Start a new sequence of `count` positions and choose the first token."""

    @abstractmethod
    def step(self) -> None:
        """Decode one more token."""

    @property
    @abstractmethod
    def step_megabytes(self) -> float:
        """Weights that a decoded token reads, in 10^6 bytes: the roofline's numerator."""

    def measure(self, prompt: int, steps: int) -> tuple[float, float]:
        """Milliseconds of a prefill, and of a step in the mean of so many."""
        start = time.perf_counter()
        self.prefill(prompt)
        between = time.perf_counter()
        for _ in range(steps):
            self.step()
        end = time.perf_counter()
        return (between - start) * 1e3, (end - between) * 1e3 / steps


class Encoder(Peer):
    """Whisper's encoder."""

    kind = "encoder"

    @abstractmethod
    def encode(self) -> Any:
        """Hidden states of a 30 s window whose log-mel [1, mels, 3000] is in memory."""

    def heard(self) -> Any:
        """The same as float32 [1, positions, width]."""
        import numpy as np

        return np.asarray(self.encode(), np.float32)


def prompt_ids(place: Place, count: int) -> Any:
    """Token ids int64 [count], the same for all; special tokens are left out."""
    import numpy as np

    return np.random.default_rng(0).integers(3, place.llm.vocab // 2, count)


def log_mel(place: Place) -> Any:
    """float32 [1, mels, 3000], the same for all."""
    import numpy as np

    return np.random.default_rng(0).standard_normal((1, place.ears.mels, 3000), np.float32)
