"""Several processes, each with the model and a share of the cores; one that dies loses no file."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from multiprocessing import connection
from typing import Any

from alm.batch import rows
from alm.batch.files import File, mark
from alm.batch.job import Job
from alm.errors import AlmError
from alm.host import processor

PATIENCE = 5.0  # seconds for a process to end when it is told to
READY, ROWS, REFUSED = "ready", "rows", "refused"

# A process begins anew: a copy of one with threads of a model in it would hold locks of nobody.
SPAWN = multiprocessing.get_context("spawn")


@dataclass
class Worker:
    """A process, its end of the pipe, and what it is answering."""

    place: int
    process: Any
    pipe: connection.Connection
    ready: bool = False
    doing: list[File] = field(default_factory=list)


class Workers:
    """So many processes; a context manager that leaves none behind.

    A process that dies while it answers is replaced. Its files are given to another one, each
    alone; a file whose process dies again gets a row that says so.
    """

    def __init__(self, job: Job, count: int) -> None:
        """`job.threads` are those of each; 0 gives each its share of the cores."""
        self.job, self.made_with, self.count = job, job.made_with(), count
        self._shares = shares(count)
        self._workers: list[Worker] = []
        self._again: set[str] = set()  # files that were lost once

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._workers:
            worker.pipe.close()
            worker.process.terminate()
        for worker in self._workers:
            worker.process.join(PATIENCE)
            worker.process.kill()  # does nothing to one that has ended
        self._workers.clear()

    def answer(self, groups: Sequence[list[File]]) -> Iterator[list[rows.Row]]:
        """Rows of the groups as they come; each group is a batch of one model.

        Raises:
            AlmError: a model cannot be opened, or no process lives until it has.
        """
        queue = deque(groups)
        self._workers += [self._start(place) for place in range(min(self.count, len(queue)))]
        while queue or any(worker.doing for worker in self._workers):
            for worker in self._workers:
                if worker.ready and not worker.doing and queue:
                    self._give(worker, queue.popleft())
            pipes = {worker.pipe: worker for worker in self._workers}
            for pipe in connection.wait(list(pipes)):
                worker = pipes[pipe]  # pyright: ignore
                try:
                    kind, value = worker.pipe.recv()
                except (EOFError, OSError):
                    yield self._lost(worker, queue)
                    continue
                if kind == REFUSED:
                    raise value
                worker.ready = True
                if kind == ROWS:
                    worker.doing = []
                    yield value

    def _give(self, worker: Worker, group: list[File]) -> None:
        worker.doing = group
        with contextlib.suppress(OSError):  # it has died: that is seen when its pipe is read
            worker.pipe.send(group)

    def _start(self, place: int) -> Worker:
        ours, theirs = SPAWN.Pipe()
        cores = self._shares[place]
        threads = self.job.threads or max(1, len(cores))
        job = replace(self.job, threads=threads)
        keep = [] if self.job.threads else cores
        process = SPAWN.Process(target=work, args=(job, theirs, keep), daemon=True)
        with _deaf():
            process.start()
        theirs.close()
        return Worker(place, process, ours)

    def _lost(self, worker: Worker, queue: deque[list[File]]) -> list[rows.Row]:
        """Go on without a worker that has died: rows of files that had died before."""
        worker.process.join(PATIENCE)
        worker.pipe.close()
        how = _ended(worker.process.exitcode)
        self._workers.remove(worker)
        failed: list[rows.Row] = []
        for file in reversed(worker.doing):
            if file.path in self._again:
                why = f"the process that answered it {how} twice"
                failed.append(rows.failed(file, mark(file.path), self.made_with, why))
            else:
                self._again.add(file.path)
                queue.appendleft([file])
        if worker.ready and queue:
            self._workers.append(self._start(worker.place))
        elif not worker.ready and not self._workers:
            raise AlmError(
                f"every process {how} before its model was open; with less memory for each, "
                "fewer may do: --workers 1"
            )
        return failed


def shares(count: int) -> list[list[int]]:
    """The cores of each of `count` processes; some share one where there are too few."""
    cores = list(range(processor.usable_cores()))
    if hasattr(os, "sched_getaffinity"):
        cores = sorted(os.sched_getaffinity(0))
    if count >= len(cores):
        return [[cores[place % len(cores)]] for place in range(count)]
    ends = [place * len(cores) // count for place in range(count + 1)]
    return [cores[start:end] for start, end in zip(ends, ends[1:], strict=False)]


def work(job: Job, pipe: connection.Connection, cores: Sequence[int]) -> None:
    """What a process does: it answers groups of files until the pipe is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's
    if cores and hasattr(os, "sched_setaffinity"):
        with contextlib.suppress(OSError):
            os.sched_setaffinity(0, cores)
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        try:
            from alm.batch.answerer import Answerer

            answerer = Answerer(job)
            pipe.send((READY, None))
            while True:
                pipe.send((ROWS, answerer.rows(pipe.recv())))
        except (EOFError, OSError) as error:
            if isinstance(error, AlmError):  # a missing file is both
                pipe.send((REFUSED, error))
            raise
        except MemoryError:
            pipe.send((REFUSED, AlmError("out of memory; fewer processes may do: --workers 1")))
        except Exception as error:
            ours = isinstance(error, AlmError)
            said = error if ours else AlmError(f"unexpected {type(error).__name__}: {error}")
            pipe.send((REFUSED, said))


def _ended(status: int | None) -> str:
    if status == -getattr(signal, "SIGKILL", 9):
        return "was killed (SIGKILL; for want of memory?)"
    if status is not None and status < 0:
        with contextlib.suppress(ValueError):
            return f"was ended by {signal.Signals(-status).name}"
    return f"ended with status {status}"


@contextlib.contextmanager
def _deaf() -> Iterator[None]:
    """A process that is started meanwhile begins deaf to Ctrl-C, which is the parent's."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before: Callable[..., Any] | int | None = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
