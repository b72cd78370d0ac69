"""What doctor finds: one line of its report."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

OK, WRONG, LEFT_OUT, NOTE = "ok", "wrong", "not run", "note"


@dataclass(frozen=True)
class Finding:
    """A check of one thing, and how it ended."""

    check: str  # files, vectors, runs, tokenizer, audio, machine, nodes
    subject: str  # a part, a run, a file, a property of the machine
    verdict: str  # OK, WRONG, LEFT_OUT or NOTE
    provider: str = ""
    threads: int | None = None
    worst: float | None = None  # the largest error, in the unit of what was checked
    allowed: float | None = None
    ms: float | None = None
    what: str = ""  # what there is
    way_out: str = ""  # what to do
    refused: bool = False  # not run, since the provider did not take it

    @property
    def wrong(self) -> bool:
        """Whether the device failed."""
        return self.verdict == WRONG

    def to_json(self) -> dict[str, Any]:
        """Without what is empty; numbers that are not finite as null."""
        said = {name: value for name, value in asdict(self).items() if name != "refused"}
        plain = {name: value for name, value in said.items() if value not in ("", None)}
        return {n: None if v in (float("inf"), float("-inf")) else v for n, v in plain.items()}
