"""alm batch: many files answered by one model, a row of JSON each."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from alm.cli import arguments as args
from alm.cli import exit_status
from alm.cli.terminal import tell
from alm.hub import local

if TYPE_CHECKING:
    from alm.batch.job import Job
    from alm.batch.results import Results, Todo
    from alm.batch.running import Ways

# Words of the command that say how clips are taken, under the names of `Model.generate`.
OPTIONS = (
    *("truncate", "max_audio_seconds", "joins", "verbatim", "language", "merge_audio", "adapter"),
    *("gate", "system"),
)


def batch(
    folder: args.Folder,
    files: args.Files,
    prompt: args.Prompt = "transcribe",
    out: args.Results = Path("results.jsonl"),
    fresh: args.Fresh = False,
    retry_failed: args.RetryFailed = False,
    workers: args.Workers = 0,
    rows: args.Rows = 1,
    ray: args.Ray = "",
    align: args.Align = None,
    language: args.Language = "",
    verbatim: args.Verbatim = False,
    merge_audio: args.MergeAudio = 100.0,
    adapter: args.Adapter = "",
    schema: args.Schema = None,
    grammar: args.Grammar = None,
    regex: args.Regex = "",
    max_new_tokens: args.MaxNewTokens = None,
    num_beams: args.NumBeams = None,
    repetition_penalty: args.RepetitionPenalty = None,
    length_penalty: args.LengthPenalty = None,
    min_new_tokens: args.MinNewTokens = None,
    no_repeat_ngram_size: args.NoRepeatNgramSize = None,
    sample: args.Sample = None,
    temperature: args.Temperature = None,
    top_p: args.TopP = None,
    top_k: args.TopK = None,
    min_p: args.MinP = None,
    seed: args.Seed = None,
    system: args.System = "",
    stop: args.Stop = None,
    more: args.More = None,
    threads: args.Threads = 0,
    provider: args.Provider = "auto",
    cache: args.Cache = None,
    draft: args.Draft = None,
    joins: args.Joins = "exact",
    gate: args.Gate = None,
    truncate: args.Truncate = False,
    max_audio_seconds: args.MaxAudioSeconds = 3600.0,
    debug: args.Debug = False,
) -> int:
    """Answer one prompt about many files, a row of JSON each; a run that was stopped goes on.

    Exit status 1 where a file has no answer: its row says why.
    """
    options = _options(locals())
    from alm.batch.files import find
    from alm.batch.job import Job
    from alm.batch.results import Results
    from alm.batch.running import Ways

    here, aligner, small = map(_here, (folder, align, draft))
    job = Job(here, prompt, options, provider, threads, aligner, cache and str(cache), small)
    ways = Ways(workers, rows, ray)
    _check(job, ways)
    found = find(files)
    with Results(out, job.made_with(), fresh) as results:
        return _answered(job, ways, results, results.todo(found, retry_failed))


def _options(given: dict[str, Any]) -> dict[str, Any]:
    """The words of `Model.generate` among the command's."""
    from alm.grammar import files

    options = {name: given[name] for name in OPTIONS} | args.decoding(given)
    options |= {"stop": given["stop"] or ()}
    return options | files.given(given["schema"], given["grammar"], given["regex"])


def _here(given: str | Path | None) -> Any:
    """The folder as text; None of none."""
    return None if given is None else str(local.folder(given))


def _check(job: Job, ways: Ways) -> None:
    """Refuse words that contradict each other before a model of gigabytes is loaded."""
    from alm.artifacts.manifest import check_run, load
    from alm.audio import merging, reader
    from alm.batch import on_ray
    from alm.cli.request import meant
    from alm.generation import keywords

    manifest = load(Path(job.folder))
    check_run(manifest, Path(job.folder))
    inputs, decoding = keywords.split(job.options)
    keywords.choose(manifest.facts.generation, decoding)
    merging.check(inputs.merge_audio)
    reader.check_options(manifest.facts.audio.rate, "first", inputs.max_audio_seconds)
    meant([], job.prompt, manifest.facts.prompt, True, inputs.language, inputs.verbatim)
    ways.check(job)
    if ways.ray:
        on_ray.check(ways.ray)


def _answered(job: Job, ways: Ways, results: Results, todo: Todo) -> int:
    """Answer what is to be done, and say what there is in the end."""
    from alm.batch.files import mark
    from alm.batch.running import run
    from alm.cli.reports.progress import Progress

    every = len(todo.files) + todo.kept
    if todo.kept or todo.changed:
        changed = f", {todo.changed} of them changed since" if todo.changed else ""
        tell(f"{todo.kept} of {every} files have their row, {len(todo.files)} to do{changed}")
    size = sum(mark(file.path, read=False).size or 0 for file in todo.files)
    progress = Progress(len(todo.files), size)
    try:
        with progress:
            run(job, ways, todo.files, results, progress.add)
    except KeyboardInterrupt:
        have = todo.kept + progress.done
        tell(
            f"interrupted: {have} of {every} files have their row in {results.shown}; the same "
            "command goes on"
        )
        return exit_status.Told(exit_status.INTERRUPTED)
    failed = todo.failed + progress.failed
    speed = f"; {progress.speed()}" if progress.done else ""
    again = f", {failed} of them an error (--retry-failed tries again)" if failed else ""
    tell(f"{every} files have their row in {results.shown}{again}{speed}")
    return exit_status.FAILED if failed else 0
