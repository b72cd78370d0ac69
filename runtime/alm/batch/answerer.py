"""A model opened once, and the rows of one file after another, or of several at a time."""

from __future__ import annotations

from collections.abc import Sequence

import alm
from alm.batch import rows
from alm.batch.files import File, mark
from alm.batch.job import GATE, Job
from alm.errors import AlmError
from alm.generation import keywords
from alm.generation.answers import Answer
from alm.parsing import is_panic
from alm.timings import Stages

Outcome = Answer | str  # or why there is none, in a sentence


class Answerer:
    """What answers files, in whatever process; its rows are made with `made_with`."""

    def __init__(self, job: Job) -> None:
        """Open the model.

        Raises:
            AlmError: the model, or a prompt or an option that no file could be answered with.
        """
        self.job, self.made_with = job, job.made_with()
        self.model = alm.load(
            job.folder,
            job.provider,
            job.threads,
            align=job.align,
            cache=job.cache,
            draft=job.draft,
        )
        self.model.chat(**job.options)  # refuses options that contradict each other
        self.inputs, _ = keywords.split(job.options)
        words = self.inputs.verbatim, self.inputs.language
        self.model.parts.prompter.build(job.prompt, 1, 0, True, *words)

    def rows(self, files: Sequence[File]) -> list[rows.Row]:
        """A row for each file; those of several files are computed as one batch of the model.

        Raises:
            AlmError: the command line is wrong (`usage`): no file could be answered.
        """
        # Before they are answered: what changes meanwhile will be seen to have changed.
        marks = [mark(file.path) for file in files]
        made: list[rows.Row] = []
        outcomes = self._outcomes([file.path for file in files])
        for file, was, outcome in zip(files, marks, outcomes, strict=True):
            if isinstance(outcome, str):
                made.append(rows.failed(file, was, self.made_with, outcome))
            else:
                made.append(rows.answered(file, was, self.made_with, outcome.to_json()))
        return made

    def _outcomes(self, paths: Sequence[str]) -> list[Outcome]:
        if not paths:
            return []
        try:
            asked = [[path] for path in paths]
            return [*self.model.generate(asked, self.job.prompt, **{**GATE, **self.job.options})]
        except BaseException as error:
            why = _sentence(error)
        if len(paths) == 1:
            return [why]
        # One of them cost the others their answers: mostly one that cannot be read.
        unread = {path: why for path in dict.fromkeys(paths) if (why := self._unread(path))}
        if not unread:
            return [outcome for path in paths for outcome in self._outcomes([path])]
        rest = [path for path in paths if path not in unread]
        answered = iter(self._outcomes(rest))
        return [unread[path] if path in unread else next(answered) for path in paths]

    def _unread(self, path: str) -> str:
        """Why a file cannot be read; "" for one that can."""
        try:
            self.model.parts.rules.read(path, self.inputs.max_audio_seconds, Stages())
        except Exception as error:
            return _sentence(error)
        return ""


def _sentence(error: BaseException) -> str:
    """What is wrong with a file, where it is the file and not the whole run that fails."""
    if isinstance(error, AlmError) and not error.usage:
        return str(error)
    if isinstance(error, MemoryError):
        return "out of memory"
    if isinstance(error, AlmError) or not (isinstance(error, Exception) or is_panic(error)):
        raise error
    return f"unexpected {type(error).__name__}: {error}".split("\n")[0]
