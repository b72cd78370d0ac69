"""All checks of a folder on this device, in their order."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from alm import backends
from alm.artifacts.manifest import Manifest
from alm.artifacts.manifest import load as load_manifest
from alm.doctor import answers, files, machine, nodes, sound, vectors
from alm.doctor.finding import WRONG, Finding
from alm.doctor.vectors import Way
from alm.errors import BadArtifacts, MissingPackage
from alm.host import processor


def examine(
    folder: Path,
    providers: Sequence[str] = (),
    threads: Sequence[int] = (),
    say: Callable[[str], None] = lambda line: None,
) -> Iterator[Finding]:
    """What is right and wrong with a folder on this device, as it is found out.

    Args:
        folder: what export.py wrote.
        providers: those to try; all that can run here if none are given.
        threads: numbers of threads to try on the processor; one and all cores if none are given.
        say: told what is being done.

    Raises:
        MissingFile, BadArtifacts: there is no manifest that can be read, or it lists no part.
        MissingPackage, UnknownName, BadOption: a provider that is not here, odd threads.
    """
    manifest = load_manifest(folder)
    if not manifest.parts:
        raise BadArtifacts(f"{folder} lists no part, so there is nothing to prove")
    ways = chosen(providers, threads)
    say("files")
    damaged: set[str] = set()
    for finding in files.check(folder, manifest):
        damaged |= {finding.subject} if finding.wrong else set()
        yield finding
    say("sound")
    yield from sound.check(manifest.facts.audio.rate, manifest.facts.audio.channel)
    yield from machine.check(manifest, max(threads, default=0))
    refused: dict[str, Finding] = {}
    ran: set[str] = set()
    for finding in _each(folder, manifest, ways, damaged, say):
        stage = finding.subject if finding.check == "vectors" else finding.check
        refused |= {stage: finding} if finding.refused else {}
        ran |= set() if finding.refused else {stage}
        yield finding
    for stage, finding in refused.items():  # what nothing here takes does not run here
        if stage not in ran and not finding.wrong:
            what = f"nothing here takes it: {finding.what}"
            yield replace(finding, verdict=WRONG, provider="", threads=None, what=what)


def _each(
    folder: Path,
    manifest: Manifest,
    ways: Sequence[Way],
    damaged: set[str],
    say: Callable[[str], None],
) -> Iterator[Finding]:
    for number, way in enumerate(ways):
        for finding in vectors.check(folder, manifest, way, damaged, say):
            if number and finding.provider == "numpy":
                continue  # the table is the same for all
            yield finding
        yield from nodes.check(folder, manifest, way, damaged)
        for finding in answers.check(folder, manifest, way, damaged, say):
            if number and finding.check == "tokenizer":
                continue
            yield finding


def chosen(providers: Sequence[str], threads: Sequence[int]) -> list[Way]:
    """The providers and numbers of threads to try; see `examine`."""
    there = backends.here()
    for name in providers:
        backends.choose(name)
        if name not in there:
            raise MissingPackage(f"provider {name!r} cannot run here; there is: {', '.join(there)}")
    for count in threads:
        processor.check_threads(count)
    counts = [*dict.fromkeys(threads or (1, processor.usable_cores()))]
    return [
        Way(name, count, bool(providers))
        for name in providers or there
        for count in (counts if backends.on_cpu(name) else [0])
    ]


def first_wrong(findings: Sequence[Finding]) -> Finding | None:
    """The first stage that is wrong, in the order of a run: what comes after it follows from it."""
    return next((finding for finding in findings if finding.wrong), None)
