"""The whole run: which files, in which order, by whom, and a row for each as it comes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from alm.batch import rows
from alm.batch.answerer import Answerer
from alm.batch.files import File, mark
from alm.batch.job import Job
from alm.batch.on_ray import Cluster
from alm.batch.results import Results
from alm.batch.workers import Workers
from alm.cache.audio import MOST_ROWS
from alm.errors import BadOption
from alm.host import processor

MOST_WORKERS = 256


@dataclass(frozen=True)
class Ways:
    """By whom files are answered: `workers` processes (of Ray actors, 0 is one a machine).

    `rows` are answered as one batch of the model. `ray` is the address of a cluster, or "".
    """

    workers: int = 0
    rows: int = 1
    ray: str = ""

    def check(self, job: Job) -> None:
        """Refuse, with BadOption, what is out of range or contradicts the job."""
        processor.check_threads(job.threads)
        if not 1 <= self.rows <= MOST_ROWS:
            raise BadOption(
                f"--rows is 1 to {MOST_ROWS}, the most that the model answers at once, not "
                f"{self.rows}"
            )
        if self.workers > MOST_WORKERS:
            raise BadOption(f"--workers is at most {MOST_WORKERS}, not {self.workers}")
        if self.rows > 1 and job.draft is not None:
            raise BadOption("--draft follows one clip at a time, and --rows asks for several")


def run(
    job: Job,
    ways: Ways,
    files: Sequence[File],
    results: Results,
    on_row: Callable[[rows.Row], None],
) -> None:
    """Answer the files and write a row for each; `on_row` is called when it is written.

    Whoever ends it half-way leaves whole rows, and the files without one to the next run.

    Raises:
        AlmError: the model cannot be opened, no file could be answered with these options, or the
            results cannot be written.
    """
    begun = False
    with ExitStack() as stack:
        for made in _made(job, ways, files, stack) if files else ():
            if not begun:  # the model is open: what was there may be changed
                results.begin()
                begun = True
            for row in made:
                results.add(row)
                on_row(row)
    if not begun:
        results.begin()


def _made(
    job: Job, ways: Ways, files: Sequence[File], stack: ExitStack
) -> Iterator[list[rows.Row]]:
    """Rows as they come, some of them at a time."""
    if ways.ray:
        cluster = stack.enter_context(Cluster(job, ways.ray, ways.workers, ways.rows))
        yield from cluster.answer(_long_first(files))
    elif ways.workers > 1:
        pool = stack.enter_context(Workers(job, ways.workers))
        yield from pool.answer(_groups(_long_first(files), ways.rows))
    else:
        ordered = _long_first(files) if ways.rows > 1 else files
        yield from map(Answerer(job).rows, _groups(ordered, ways.rows))


def _groups(files: Sequence[File], size: int) -> list[list[File]]:
    return [list(files[at : at + size]) for at in range(0, len(files), size)]


def _long_first(files: Sequence[File]) -> list[File]:
    """So that no worker ends alone with the longest, and rows of a batch are about as long."""
    sizes = {file.path: mark(file.path, read=False).size or 0 for file in files}
    return sorted(files, key=lambda file: -sizes[file.path])
