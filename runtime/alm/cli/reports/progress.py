"""How far a long run is, and when it will end: a bar at a terminal, lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

from alm.cli.terminal import tell
from alm.parsing import printable

EVERY = 10.0  # seconds between lines


class Progress:
    """Counts rows of a batch; a context manager that shows them on stderr meanwhile."""

    def __init__(
        self,
        files: int,
        size: int,
        say: Callable[[str], None] = tell,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`files` are to be answered, of `size` bytes together, by which the end is foreseen."""
        self.files, self.size = files, size
        self.done = self.failed = self._bytes = 0
        self.audio_seconds = 0.0
        self._say, self._clock = say, clock
        self._began = self._said = clock()
        self._bar: Any = None
        self._task: Any = None

    def __enter__(self) -> Progress:
        if self.files and sys.stderr.isatty():
            self._bar, self._task = _bar(self.files)
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar:
            self._bar.stop()

    def add(self, row: dict[str, Any]) -> None:
        """A row was written."""
        self.done += 1
        self._bytes += row["source"]["size"] or 0
        self.audio_seconds += row.get("audio_seconds", 0.0)
        if "error" in row:
            self.failed += 1
            about = "" if row["file"] in row["error"] else f"{row['file']}: "
            self._tell(f"error: {printable(about + row['error'])}")
        if self._bar:
            self._bar.update(self._task, completed=self.done, speed=self.speed(), left=self.left())
        elif (now := self._clock()) - self._said >= EVERY:
            self._said = now
            failed = f", {self.failed} failed" if self.failed else ""
            self._say(
                f"{self.done} of {self.files} files{failed}, {self.speed()}, {self.left()} left"
            )

    def speed(self) -> str:
        """Files, and seconds of audio, in a second."""
        took = max(self._clock() - self._began, 1e-9)
        return f"{self.done / took:.3g} files/s, {self.audio_seconds / took:.3g} s of audio/s"

    def left(self) -> str:
        """The time left, as hours, minutes and seconds; long files count for more."""
        share = self._bytes / self.size if self.size and self._bytes else self.done / self.files
        if not share:
            return "-:--"
        took = self._clock() - self._began
        seconds = max(0, round(took / min(share, 1.0) - took))
        hours, minutes = seconds // 3600, seconds // 60 % 60
        return (
            f"{hours}:{minutes:02d}:{seconds % 60:02d}"
            if hours
            else f"{minutes}:{seconds % 60:02d}"
        )

    def _tell(self, sentence: str) -> None:
        if self._bar:
            self._bar.console.print(sentence, markup=False, highlight=False, emoji=False)
        else:
            self._say(sentence)


def _bar(files: int) -> tuple[Any, Any]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = (
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[speed]}, {task.fields[left]} left", markup=False),
    )
    bar = Progress(*columns, console=Console(stderr=True))
    return bar, bar.add_task("", total=files, speed="", left="-:--")
