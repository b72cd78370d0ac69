"""What machines of a Ray cluster run: actors that hold the model, and the one that counts tries."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

from alm.batch import rows
from alm.batch.answerer import Answerer
from alm.batch.files import File, mark
from alm.batch.job import Job
from alm.errors import AlmError

TRIES = 2  # a file whose actor is lost is given to another one once
OPENINGS = 3  # of a model, without one that came to its end


class Ledger:
    """What was begun and not ended, by the number of a file; one actor for all.

    Ray gives the task of a lost actor to another one for ever: from here that one learns what was
    tried before.
    """

    def __init__(self) -> None:
        self._begun: dict[int, int] = {}
        self._rows: dict[int, str] = {}  # of tasks that are done again
        self._opening = self._opened = 0

    def opening(self) -> bool:
        """A model is being opened; False where that has failed too often."""
        self._opening += 1
        return self._opened > 0 or self._opening <= OPENINGS

    def opened(self) -> None:
        """It is open."""
        self._opened += 1
        self._opening = 0

    def begin(self, numbers: Sequence[int]) -> list[tuple[int, str]]:
        """How often each was begun before, and its row if there is one; only what is new begins."""
        before = [(self._begun.get(n, 0), self._rows.get(n, "")) for n in numbers]
        if not any(tries for tries, _ in before):
            self.again(numbers)
        return before

    def again(self, numbers: Sequence[int]) -> None:
        """They are begun, whatever was before."""
        for number in numbers:
            self._begun[number] = self._begun.get(number, 0) + 1

    def keep(self, number: int, row: str) -> None:
        """The row of a file whose task may be lost once more."""
        self._rows[number] = row

    def end(self, numbers: Sequence[int]) -> None:
        """They have their rows."""
        for number in numbers:
            self._begun.pop(number, None)
            self._rows.pop(number, None)


class Actor:
    """It opens the model once and answers batches of files."""

    def __init__(self, job: Job, ledger: Any, get: Callable[[Any], Any] | None = None) -> None:
        """`ledger` is the handle of a Ledger's actor, `get` Ray's where none is given."""
        if get is None:
            import ray

            get = ray.get
        self._get, self._ledger = get, ledger
        self._answerer: Answerer | None = None
        self.refused = ""  # why nothing can be answered
        if not self._get(ledger.opening.remote()):
            self.refused = "actors were lost again and again while they opened the model"
            return
        try:
            self._answerer = Answerer(job)
        except AlmError as error:
            self.refused = str(error)
        self._get(ledger.opened.remote())

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[Any]]:
        """Columns number, given and path become number, row (a line of JSON) and refused."""
        numbers = [int(number) for number in batch["number"]]
        names = zip(batch["given"], batch["path"], strict=True)
        files = [File(os.fsdecode(given), os.fsdecode(path)) for given, path in names]
        made = [""] * len(numbers)
        if self._answerer:
            try:
                made = self._rows(numbers, files)
            except AlmError as error:
                self.refused = str(error)
        return {"number": numbers, "row": made, "refused": [self.refused] * len(numbers)}

    def answer(self, files: Sequence[File]) -> list[rows.Row]:
        """Rows of files that are computed as one batch."""
        assert self._answerer
        return self._answerer.rows(files)

    def _rows(self, numbers: list[int], files: list[File]) -> list[str]:
        before = self._get(self._ledger.begin.remote(numbers))
        if any(tries for tries, _ in before):
            # An actor was lost with one of these: each alone, so that only that one is to blame.
            each = zip(numbers, files, before, strict=True)
            made = [self._alone(*one) for one in each]
        else:
            made = [rows.line(row).decode() for row in self.answer(files)]
        self._ledger.end.remote(numbers)
        return made

    def _alone(self, number: int, file: File, before: tuple[int, str]) -> str:
        assert self._answerer
        tries, row = before
        if row:
            return row
        if tries >= TRIES:
            why = f"the Ray actor that answered it was lost {tries} times (for want of memory?)"
            failed = rows.failed(file, mark(file.path), self._answerer.made_with, why)
            return rows.line(failed).decode()
        self._get(self._ledger.again.remote([number]))
        row = rows.line(self.answer([file])[0]).decode()
        self._get(self._ledger.keep.remote(number, row))
        return row
