"""What a repository is asked to be, and how its models are called."""

from __future__ import annotations

import re
from dataclasses import dataclass

from alm.artifacts.part import Part
from alm.cache.audio import MOST_ROWS
from alm.errors import BadArtifacts, BadOption
from alm.host.processor import check_threads

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")  # of a model, which is a folder's too
MOST_BATCH = 1024
AUDIO = "audio"  # of the ensemble, behind the name


@dataclass(frozen=True)
class Settings:
    """How to write it.

    `name` is the answering model's and begins the others'. `gpu`: graphs run on GPUs. `batch`: rows
    that a model may take at once. `threads` of each graph on the CPU; 0: ONNX Runtime's choice.
    `stream`: answers come in pieces. `link`: hard links in the place of copies.
    """

    name: str = "alm"
    gpu: bool = False
    batch: int = MOST_ROWS
    threads: int = 0
    stream: bool = True
    link: bool = False

    def __post_init__(self) -> None:
        """Refuse, with BadOption, what Triton or a file system would not take."""
        if not NAME.fullmatch(self.name):
            raise BadOption(
                f"--name is letters, digits, '_', '-' and '.', a letter or digit first, not "
                f"{self.name!r:.80}"
            )
        if not 1 <= self.batch <= MOST_BATCH:
            raise BadOption(f"--batch is 1 to {MOST_BATCH} rows, not {self.batch}")
        check_threads(self.threads)

    @property
    def ensemble(self) -> str:
        """The name of the model from samples to embeddings."""
        return f"{self.name}_{AUDIO}"

    def model(self, part: Part) -> str:
        """The name of a part's model.

        Raises:
            BadArtifacts: the part's name can be none.
        """
        if not NAME.fullmatch(part.name) or part.name == AUDIO:
            raise BadArtifacts(f"part {part.name!r:.80} cannot be a model's name in Triton")
        return f"{self.name}_{part.name}"
